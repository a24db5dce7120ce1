"""Code that TFX loads inside Transform, Trainer and Evaluator: features, preprocessing, models, input, training."""
