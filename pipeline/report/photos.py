"""Small copies of photos from the examples of a run, for showing them on a page."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import tensorflow as tf
from PIL import Image

from trainer_module import features
from trainer_module.evaluation import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Together at most some 300 kB of thumbnails, however many classes and photos there are.
_SAMPLES = 60
_SAMPLES_PER_CLASS = 6
# The shards are shuffled: a class that is not among so many photos is rare indeed.
_EXAMINED = 5_000
_THUMBNAIL_SIDE = 96
# Smaller pictures are kept as they are: JPEG would spoil them.
_LOSSLESS_SIDE = 32
_JPEG_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo, small enough for a page.

    Attributes:
        name: Path relative to the data folder.
        class_name: Its label.
        source: The picture as a data URI.
    """

    name: str
    class_name: str
    source: str


def sample_photos(examples: str, split: str, class_names: Sequence[str]) -> list[Photo]:
    """Takes a few photos of each class.

    Args:
        examples: URI of the Examples artifact that ingest wrote.
        split: Which split to take them from.
        class_names: All classes; where there are more than fit on a page, the first ones are shown.

    Returns:
        Photos in the order of the classes; of a class none if it is not among the first thousands.
    """
    per_class = max(1, min(_SAMPLES_PER_CLASS, _SAMPLES // max(1, len(class_names))))
    shown = list(class_names)[:_SAMPLES]
    wanted = Counter(dict.fromkeys(shown, per_class))
    found = []
    for example in itertools.islice(_examples(examples, split), _EXAMINED):
        name = _text(example, features.CLASS_TEXT)
        if wanted[name] > 0:
            wanted[name] -= 1
            found.append(_photo(example))
            if not any(wanted.values()):
                break
    return sorted(found, key=lambda photo: shown.index(photo.class_name))


def find_photos(examples: str, split: str, digests: set[str]) -> dict[str, Photo]:
    """Finds photos by the digests that the gates know them by.

    Args:
        examples: URI of the Examples artifact that ingest wrote.
        split: Which split they are in.
        digests: Hex SHA-256 of the encoded images.

    Returns:
        The photos that there are, by digest.
    """
    found: dict[str, Photo] = {}
    for example in _examples(examples, split):
        if len(found) == len(digests):
            break
        own = digest(_encoded(example))
        if own in digests:
            found[own] = _photo(example)
    return found


def _examples(uri: str, split: str) -> Iterator[tf.train.Example]:
    files = sorted(tf.io.gfile.glob(f"{uri}/Split-{split}/*"))
    for record in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator():
        yield tf.train.Example.FromString(record)


def _photo(example: tf.train.Example) -> Photo:
    return Photo(
        name=_text(example, features.IMAGE_FILENAME),
        class_name=_text(example, features.CLASS_TEXT),
        source=_thumbnail(_encoded(example)),
    )


def _thumbnail(encoded: bytes) -> str:
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB")
    stream = io.BytesIO()
    if max(small.size) <= _LOSSLESS_SIDE:
        small.save(stream, "PNG")
        kind = "png"
    else:
        small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        small.save(stream, "JPEG", quality=_JPEG_QUALITY)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _encoded(example: tf.train.Example) -> bytes:
    return example.features.feature[features.IMAGE_ENCODED].bytes_list.value[0]


def _text(example: tf.train.Example, feature: str) -> str:
    return example.features.feature[feature].bytes_list.value[0].decode()
