"""Set before anything imports TensorFlow: TFX and TFMOT work with Keras 2 only."""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
