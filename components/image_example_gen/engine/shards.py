"""Writing images as gzip-compressed TFRecord shards, one piece of work at a time."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from components.image_example_gen.engine.decoding import LoadedImage, Rejected, load_image
from components.image_example_gen.engine.listing import ImageFile, Listing
from components.image_example_gen.engine.quarantine import Quarantined, printable
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.shard_summary import Record, ShardSummary
from components.image_example_gen.engine.splits import SplitRule, plan_splits
from trainer_module import features

# A shard is the unit of parallel work and of parallel reading. It is done when it holds 2,000 small images (a second of
# work, a few MB) or 64 MiB of photos (some ten seconds of work), whichever comes first.
_IMAGES_PER_SHARD = 2_000
_BYTES_PER_SHARD = 64 * 2**20
# More files only cost more to open: readers interleave a few dozen at most. ImageNet is commonly kept in this many.
_MOST_SHARDS = 1_024

# JPEG and PNG are compressed already; the highest level costs several times as long and saves nothing.
_WRITE_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


@dataclass(frozen=True)
class Chunk:
    """Everything that is needed to write one shard of each split, on whatever machine.

    Attributes:
        root: the data folder.
        files: the images of this shard, in the order in which they are written.
        index: number of the shard, from 0.
        count: number of shards.
        rule: which split an image goes to.
        max_side: longest side of a stored image in pixels.
        max_pixels: limit beyond which an image is quarantined undecoded.
        split_uris: the folder of each split.
    """

    root: str
    files: tuple[ImageFile, ...]
    index: int
    count: int
    rule: SplitRule
    max_side: int
    max_pixels: int
    split_uris: dict[str, str]


def plan_chunks(listing: Listing, settings: IngestSettings, split_uris: dict[str, str]) -> list[Chunk]:
    """Divides the images into shards.

    The images are put in the order of a hash of their paths and dealt out like cards: each shard holds a random mixture
    of the classes, in random order, and two runs over the same files give the same shards.

    Args:
        listing: the images of the data folder.
        settings: limits, fractions and, if set, the number of shards.
        split_uris: the folder of each split, local or remote.

    Returns:
        One chunk a shard, none of them empty.
    """
    rule = plan_splits(listing, settings)
    shuffled = sorted(listing.files, key=lambda file: _hash(file.path))
    count = min(settings.shards or _shard_count(listing), len(shuffled))
    return [
        Chunk(
            root=os.fspath(listing.root),
            files=tuple(shuffled[index::count]),
            index=index,
            count=count,
            rule=rule,
            max_side=settings.max_side,
            max_pixels=settings.max_pixels,
            split_uris=split_uris,
        )
        for index in range(count)
    ]


def write_shard(chunk: Chunk) -> ShardSummary:
    """Writes one shard of each split; memory holds one image at a time.

    A split without an image in this chunk still gets its file, with no record in it, so that a complete set of shards
    can be told from an incomplete one by the names.

    Args:
        chunk: what to write.

    Returns:
        What was written and what was quarantined.
    """
    name = f"data_tfrecord-{chunk.index:05d}-of-{chunk.count:05d}.gz"
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(_atomic_writer(uri, name)) for split, uri in sorted(chunk.split_uris.items())
        }

        def write(record: Record, image: LoadedImage) -> None:
            # Deterministic, since a map has no order of its own: the same files make the same shards.
            writers[record.split].write(_example(record, image).SerializeToString(deterministic=True))

        return read_chunk(chunk, write)


def read_chunk(chunk: Chunk, use: Callable[[Record, LoadedImage], None] | None = None) -> ShardSummary:
    """Reads the images of a chunk, one at a time.

    Args:
        chunk: what to read.
        use: is given each image that can be used; None to see only which those are.

    Returns:
        What was used and what was quarantined.
    """
    summary = ShardSummary()
    for file in chunk.files:
        image = _read(file, chunk)
        path = printable(file.path)
        if isinstance(image, Rejected):
            summary.quarantined.append(Quarantined(path=path, reason=image.reason))
            continue
        record = Record(
            path=path,
            class_name=file.class_name,
            split=chunk.rule.split_of(file, image.sha256),
            sha256=image.sha256,
            likeness=image.likeness,
        )
        if use is not None:
            use(record, image)
        summary.add(record, image)
    return summary


def _read(file: ImageFile, chunk: Chunk) -> LoadedImage | Rejected:
    path = Path(chunk.root, file.path)
    image = load_image(path, chunk.max_side, chunk.max_pixels)
    try:
        status = path.stat()
    except OSError:
        # What reading it came to is the better reason; content that is gone by now was read as a whole.
        return image
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        return Rejected("changed while the data folder was read; run again when its files are at rest")
    return image


def _shard_count(listing: Listing) -> int:
    size = sum(file.size for file in listing.files)
    wanted = max(-(-len(listing.files) // _IMAGES_PER_SHARD), -(-size // _BYTES_PER_SHARD))
    return max(1, min(wanted, _MOST_SHARDS))


@contextmanager
def _atomic_writer(folder: str, name: str) -> Iterator[tf.io.TFRecordWriter]:
    tf.io.gfile.makedirs(folder)
    final = tf.io.gfile.join(folder, name)
    temporary = f"{final}.{uuid.uuid4().hex}.tmp"
    try:
        with tf.io.TFRecordWriter(temporary, _WRITE_OPTIONS) as writer:
            yield writer
        tf.io.gfile.rename(temporary, final, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise


def _example(record: Record, image: LoadedImage) -> tf.train.Example:
    values = {
        features.IMAGE_ENCODED: _bytes(image.encoded),
        features.IMAGE_FORMAT: _bytes(image.stored_format.encode()),
        features.IMAGE_FILENAME: _bytes(record.path.encode()),
        features.IMAGE_SHA256: _bytes(image.sha256.encode()),
        features.IMAGE_HEIGHT: _integer(image.height),
        features.IMAGE_WIDTH: _integer(image.width),
        features.IMAGE_BRIGHTNESS: tf.train.Feature(float_list=tf.train.FloatList(value=[image.brightness])),
        features.CLASS_TEXT: _bytes(record.class_name.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=values))


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _integer(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _hash(path: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8])
