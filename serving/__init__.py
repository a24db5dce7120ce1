"""Serving of pushed .tflite models. Imports neither TensorFlow nor TFX."""
