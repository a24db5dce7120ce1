"""The report on disk, and how shards hand in theirs."""

from collections.abc import Iterable, Iterator

import tensorflow as tf
from pydantic import TypeAdapter

from components.image_example_gen.engine.duplicates import Leak
from components.image_example_gen.engine.quarantine import Quarantined
from components.image_example_gen.engine.shard_summary import ShardSummary
from components.image_example_gen.engine.statistics import IngestStatistics, Outcome

STATISTICS_FILE = "ingest.json"
QUARANTINE_FILE = "quarantine.jsonl"
LEAKS_FILE = "leaks.jsonl"
# Of each file that the shards' summaries are collected in, between these its number where there are several.
SHARDS_PREFIX, SHARDS_SUFFIX = "shards", ".jsonl"

_LEAK = TypeAdapter(Leak)


def write_report(folder: str, outcome: Outcome) -> None:
    """Writes `ingest.json`, `quarantine.jsonl` and `leaks.jsonl`.

    Args:
        folder: an existing folder, local or remote.
        outcome: the figures, the quarantined files and the leaks; each of the latter becomes a line.
    """
    _write(folder, QUARANTINE_FILE, (item.model_dump_json() for item in outcome.quarantined))
    _write(folder, LEAKS_FILE, (_LEAK.dump_json(leak).decode() for leak in outcome.leaks))
    _write(folder, STATISTICS_FILE, [outcome.statistics.model_dump_json(indent=2)])


def read_statistics(folder: str) -> IngestStatistics:
    """Reads `ingest.json`."""
    with tf.io.gfile.GFile(tf.io.gfile.join(folder, STATISTICS_FILE)) as file:
        return IngestStatistics.model_validate_json(file.read())


def read_quarantined(folder: str) -> list[Quarantined]:
    """Reads `quarantine.jsonl`."""
    return [Quarantined.model_validate_json(line) for line in _lines(tf.io.gfile.join(folder, QUARANTINE_FILE))]


def read_leaks(folder: str) -> list[Leak]:
    """Reads `leaks.jsonl`."""
    return [_LEAK.validate_json(line) for line in _lines(tf.io.gfile.join(folder, LEAKS_FILE))]


def read_summaries(folder: str) -> Iterator[ShardSummary]:
    """Reads `shards*.jsonl`, which the shards' summaries are collected in, in no particular order."""
    for path in tf.io.gfile.glob(tf.io.gfile.join(folder, f"{SHARDS_PREFIX}*{SHARDS_SUFFIX}")):
        for line in _lines(path):
            yield ShardSummary.model_validate_json(line)


def _write(folder: str, name: str, lines: Iterable[str]) -> None:
    path = tf.io.gfile.join(folder, name)
    with tf.io.gfile.GFile(f"{path}.tmp", "w") as file:
        # At least an empty text: without a write there would be no file.
        file.write("".join(f"{line}\n" for line in lines))
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


def _lines(path: str) -> Iterator[str]:
    with tf.io.gfile.GFile(path) as file:
        yield from file
