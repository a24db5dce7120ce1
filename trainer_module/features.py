"""Names of the features in raw and in transformed examples, and of the splits."""

# Raw tf.Example, written by ImageExampleGen. The names are those of the TensorFlow Object Detection API.
IMAGE_ENCODED = "image/encoded"  # bytes: a baseline-decodable RGB or grayscale JPEG, or an 8-bit RGB PNG
IMAGE_FORMAT = "image/format"  # bytes: b"jpeg" or b"png"
IMAGE_FILENAME = "image/filename"  # bytes: path relative to the data folder, for reports
IMAGE_SHA256 = "image/key/sha256"  # bytes: hex digest of the file's content
IMAGE_HEIGHT = "image/height"  # int64: pixels, after EXIF orientation
IMAGE_WIDTH = "image/width"  # int64: pixels, after EXIF orientation
IMAGE_BRIGHTNESS = "image/brightness"  # float32: mean luma in [0, 1]
CLASS_TEXT = "image/class/text"  # bytes: name of the class, UTF-8

# Transformed tf.Example, written by Transform.
PIXELS = "pixels"  # bytes: raw uint8 RGB, image_size * image_size * 3 bytes, row-major
LABEL = "label"  # int64: index into the vocabulary

LABEL_VOCABULARY = "labels"  # name of the Transform vocabulary file

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"
TEST_SPLIT = "test"
SPLITS = (TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT)
