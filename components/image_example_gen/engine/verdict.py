"""Whether what was read is enough to go on."""

from collections.abc import Sequence

from components.image_example_gen.engine.quarantine import Quarantined
from components.image_example_gen.engine.statistics import IngestStatistics
from trainer_module.errors import UserError
from trainer_module.features import SPLITS, TRAIN_SPLIT

# A message is to be read at a glance; the log has all of the files.
_NAMED = 3


def check(statistics: IngestStatistics, quarantined: Sequence[Quarantined], max_quarantined: float) -> None:
    """Stops a run that would train on too little.

    Args:
        statistics: figures of the data folder.
        quarantined: the files that are not used.
        max_quarantined: largest share of them that is accepted, in [0, 1].

    Raises:
        UserError: too large a share is quarantined, fewer than two classes are left, a class has no image to train on,
            or a split has none at all.
    """
    _check_share(statistics, quarantined, max_quarantined)
    _check_classes(statistics, quarantined)
    _check_splits(statistics, quarantined)


def _check_share(statistics: IngestStatistics, quarantined: Sequence[Quarantined], limit: float) -> None:
    counts = statistics.images
    if counts.quarantined > limit * counts.read:
        raise UserError(
            f"{statistics.data}: {counts.quarantined} of {counts.read} images cannot be used "
            f"({counts.quarantined / counts.read:.1%}, the limit is {limit:.1%}); first: {_first(quarantined)}; "
            "mend or remove them, or raise data.max_quarantined"
        )


def _check_classes(statistics: IngestStatistics, quarantined: Sequence[Quarantined]) -> None:
    classes = {name for counts in statistics.splits.values() for name in counts}
    if len(classes) < 2:
        raise UserError(
            f"{statistics.data}: usable images of {len(classes)} class(es) are left, but a classifier needs two or "
            f"more; mend the images that cannot be read or add others{_unused(quarantined)}"
        )
    untrained = sorted(classes - statistics.splits[TRAIN_SPLIT].keys())
    if untrained:
        raise UserError(
            f"{statistics.data}: the class '{untrained[0]}' has no usable image in the train folder; add some there, "
            f"or remove the class from the other folders{_unused(quarantined)}"
        )


def _check_splits(statistics: IngestStatistics, quarantined: Sequence[Quarantined]) -> None:
    for split in SPLITS:
        if not statistics.splits[split]:
            raise UserError(
                f"{statistics.data}: no image is left for the {split} split; at least one class needs three or more "
                f"distinct images, or the {split} folder needs images{_unused(quarantined)}"
            )


def _unused(quarantined: Sequence[Quarantined]) -> str:
    """Says of the files that may be what is missing why they are not used."""
    return f"; {len(quarantined)} images cannot be used, first: {_first(quarantined)}" if quarantined else ""


def _first(quarantined: Sequence[Quarantined]) -> str:
    return "; ".join(f"{item.path}: {item.reason}" for item in quarantined[:_NAMED])
