"""Chunks on disk, on their way to those who write the shards: millions of names are too many for a Beam pipeline."""

import json
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter

import tensorflow as tf

from components.image_example_gen.engine.listing import ImageFile
from components.image_example_gen.engine.shards import Chunk
from components.image_example_gen.engine.splits import SplitRule

_VALUES = attrgetter(*(field.name for field in fields(ImageFile)))


def store_chunks(chunks: Iterable[Chunk], folder: str) -> list[str]:
    """Writes each chunk to a file.

    Args:
        chunks: what to write.
        folder: where to, local or remote; made where it is missing.

    Returns:
        The paths of the files.
    """
    tf.io.gfile.makedirs(folder)
    return [_store(chunk, folder) for chunk in chunks]


def load_chunk(path: str) -> Chunk:
    """Reads a file that `store_chunks` wrote."""
    with tf.io.gfile.GFile(path) as file:
        values = json.loads(file.read())
    files = tuple(ImageFile(*each) for each in values.pop("files"))
    return Chunk(files=files, rule=SplitRule(**values.pop("rule")), **values)


def _store(chunk: Chunk, folder: str) -> str:
    path = tf.io.gfile.join(folder, f"{chunk.index:05d}-of-{chunk.count:05d}.json")
    # Not by dataclasses.asdict, whose copies of millions of files take seconds.
    values = vars(chunk) | {"rule": vars(chunk.rule), "files": list(map(_VALUES, chunk.files))}
    with tf.io.gfile.GFile(path, "w") as file:
        # The standard library's, in ASCII: it alone keeps the bytes of names that are no UTF-8.
        file.write(json.dumps(values))
    return path
