"""The checks of ingest without its output."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.image_example_gen.engine import report, verdict
from components.image_example_gen.engine.listing import Listing
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.shards import plan_chunks, read_chunk
from components.image_example_gen.engine.statistics import Outcome, summarise
from trainer_module.errors import UserError


@dataclass(frozen=True)
class Finding:
    """What ingest would say of a data folder.

    Attributes:
        outcome: figures, quarantined files and leaks.
        refusal: why a run would stop, one line; None if it would go on.
    """

    outcome: Outcome
    refusal: str | None


def check(listing: Listing, settings: IngestSettings, progress: Callable[[int, int], None]) -> Finding:
    """Reads every image of a data folder as ingest does, and writes nothing there.

    Args:
        listing: what lies in the folder.
        settings: limits and fractions.
        progress: is called with the number of images that were read so far, and of all.

    Returns:
        What ingest would say.
    """
    with tempfile.TemporaryDirectory() as folder:
        read = 0
        with Path(folder, report.SHARDS_PREFIX + report.SHARDS_SUFFIX).open("w", encoding="utf-8") as file:
            for chunk in plan_chunks(listing, settings, {}):
                file.write(read_chunk(chunk).model_dump_json() + "\n")
                read += len(chunk.files)
                progress(read, len(listing.files))
        outcome = summarise(listing.overview(), lambda: report.read_summaries(folder))
    try:
        verdict.check(outcome.statistics, outcome.quarantined, settings.max_quarantined)
    except UserError as error:
        return Finding(outcome, str(error))
    return Finding(outcome, None)
