"""Custom properties of the blessing of a whole release; this module imports nothing, so that readers start fast."""

# Marks the blessing of a whole release, which single gates' blessings must not be mistaken for.
RELEASED = "released"
REFUSED_BY = "refused_by"
TFLITE_MODEL_ID = "tflite_model_id"
# TFX's name (tfx.components.evaluator.constants).
SAVED_MODEL_ID = "current_model_id"
