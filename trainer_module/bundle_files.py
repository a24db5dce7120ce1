"""Names of the files of an edge bundle."""

TFLITE_FILE = "model.tflite"
LABELS_FILE = "labels.txt"
DESCRIPTION_FILE = "model.json"
