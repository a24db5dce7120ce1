"""Chunks on disk, on their way to those who write the shards: millions of names are too many for a Beam pipeline."""

import json
from dataclasses import fields
from operator import attrgetter

import tensorflow as tf

from components.image_example_gen.engine.listing import ImageFile
from components.image_example_gen.engine.shards import Chunk
from components.image_example_gen.engine.splits import SplitRule

_VALUES = attrgetter(*(field.name for field in fields(ImageFile)))


def store_chunk(chunk: Chunk, folder: str) -> str:
    """Writes a chunk to a file.

    Args:
        chunk: what to write.
        folder: where to, local or remote; made where it is missing.

    Returns:
        The path of the file.
    """
    tf.io.gfile.makedirs(folder)
    path = tf.io.gfile.join(folder, f"{chunk.index:05d}-of-{chunk.count:05d}.json")
    # Not by dataclasses.asdict, whose copies of millions of files take seconds.
    values = vars(chunk) | {"rule": vars(chunk.rule), "files": list(map(_VALUES, chunk.files))}
    with tf.io.gfile.GFile(path, "w") as file:
        # The standard library's, in ASCII: it alone keeps the bytes of names that are no UTF-8.
        file.write(json.dumps(values))
    return path


def load_chunk(path: str) -> Chunk:
    """Reads what `store_chunk` wrote."""
    with tf.io.gfile.GFile(path) as file:
        values = json.loads(file.read())
    files = tuple(ImageFile(*each) for each in values.pop("files"))
    return Chunk(files=files, rule=SplitRule(**values.pop("rule")), **values)
