"""What ingest does, one subject a module. Knows TensorFlow and Pillow, nothing of TFX or Beam."""
