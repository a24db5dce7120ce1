"""What was read, in figures, for the whole data folder."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass

from pydantic import BaseModel

from components.image_example_gen.engine.duplicates import Leak, Repetitions, Signatures, find_repetitions
from components.image_example_gen.engine.listing import Overview
from components.image_example_gen.engine.quarantine import Quarantined, enumerated, printable
from components.image_example_gen.engine.shard_summary import Record, ShardSummary
from trainer_module.features import SPLITS, TEST_SPLIT, TRAIN_SPLIT, VALIDATION_SPLIT

# Networks here begin with random weights, and know nothing but what so many photos of a class show.
_FEW_PER_CLASS = 50


class ImageCounts(BaseModel):
    """Number of files: `read` is `used` plus `quarantined`; `ignored` ones were never taken for images."""

    read: int
    used: int
    quarantined: int
    ignored: int


class Spread(BaseModel):
    """Smallest, median and largest value, in pixels."""

    min: int
    median: int
    max: int


class Duplicates(BaseModel):
    """Images that are there more than once.

    Attributes:
        copies: files beyond the first of their content.
        in_several_splits: contents that lie in several splits.
        in_several_classes: contents that lie in several classes.
        near_in_several_splits: held-out images that look like one of other content in another split, of many that look
            the same only some; None where there are too many images, or too many that look the same.
    """

    copies: int
    in_several_splits: int
    in_several_classes: int
    near_in_several_splits: int | None


class IngestStatistics(BaseModel):
    """The content of `ingest.json`.

    Attributes:
        format_version: version of this layout.
        data: absolute path of the data folder.
        fingerprint: of the names, sizes and times of change of its files.
        images: what became of the files.
        splits: number of images by split and class.
        width: of the images in pixels, upright, before capping; None without images.
        height: likewise.
        brightness: mean over the images, in [0, 1].
        stored: number of images by what is stored: "original" bytes, or a new "jpeg" or "png".
        ignored: number of ignored files and folders, by reason.
        duplicates: images that are there more than once.
        warnings: what the user should know, one line each.
    """

    format_version: int = 1
    data: str
    fingerprint: str
    images: ImageCounts
    splits: dict[str, dict[str, int]]
    width: Spread | None
    height: Spread | None
    brightness: float
    stored: dict[str, int]
    ignored: dict[str, int]
    duplicates: Duplicates
    warnings: list[str]


@dataclass(frozen=True)
class Outcome:
    """All that ingest found out: the figures, the files that are not used, and what leaks between splits."""

    statistics: IngestStatistics
    quarantined: list[Quarantined]
    leaks: list[Leak]


def summarise(overview: Overview, summaries: Callable[[], Iterator[ShardSummary]]) -> Outcome:
    """Makes the figures for the whole data folder.

    The order of the shards makes no difference.

    Args:
        overview: what was found.
        summaries: goes through what became of it, shard by shard, as often as it is called.

    Returns:
        What ingest reports.
    """
    total, signatures = _Total(overview), Signatures()
    for summary in summaries():
        total.add(summary)
        signatures.add(summary.records)
    repetitions = find_repetitions(signatures, lambda: (each for summary in summaries() for each in summary.records))
    quarantined = sorted(total.quarantined, key=lambda item: item.path)
    conflicting = [group for group in repetitions.copies if len({record.class_name for record in group}) > 1]
    splits = total.by_split_and_class()
    statistics = IngestStatistics(
        data=printable(str(overview.root)),
        fingerprint=overview.fingerprint,
        images=ImageCounts(
            read=total.used + len(quarantined),
            used=total.used,
            quarantined=len(quarantined),
            ignored=sum(overview.ignored.values()),
        ),
        splits=splits,
        width=_spread(total.widths),
        height=_spread(total.heights),
        brightness=total.brightness / total.used if total.used else 0.0,
        stored=dict(sorted(total.stored.items())),
        ignored=overview.ignored,
        duplicates=Duplicates(
            copies=sum(len(group) - 1 for group in repetitions.copies),
            in_several_splits=sum(leak.kind == "exact" for leak in repetitions.leaks),
            in_several_classes=len(conflicting),
            near_in_several_splits=repetitions.held_out_alike,
        ),
        warnings=[*_class_warnings(overview, splits), *_repetition_warnings(repetitions, conflicting)],
    )
    return Outcome(statistics, quarantined, repetitions.leaks)


class _Total:
    """The sums over all shards; holds no record."""

    def __init__(self, overview: Overview) -> None:
        self.quarantined = list(overview.quarantined)
        self.images: Counter[tuple[str, str]] = Counter()
        self.widths: Counter[int] = Counter()
        self.heights: Counter[int] = Counter()
        self.brightness = 0.0
        self.stored: Counter[str] = Counter()

    @property
    def used(self) -> int:
        return self.images.total()

    def add(self, summary: ShardSummary) -> None:
        self.quarantined += summary.quarantined
        self.images.update((record.split, record.class_name) for record in summary.records)
        self.widths += summary.widths
        self.heights += summary.heights
        self.brightness += summary.brightness
        self.stored += summary.stored

    def by_split_and_class(self) -> dict[str, dict[str, int]]:
        counts = self.images
        return {split: {name: counts[split, name] for at, name in sorted(counts) if at == split} for split in SPLITS}


def _spread(counts: Counter[int]) -> Spread | None:
    values = sorted(counts.elements())
    return Spread(min=values[0], median=values[len(values) // 2], max=values[-1]) if values else None


def _class_warnings(overview: Overview, splits: dict[str, dict[str, int]]) -> list[str]:
    surviving = {name for counts in splits.values() for name in counts}
    lost = sorted(set(overview.classes) - surviving)
    warnings = []
    if overview.shared_folders:
        warnings.append(
            f"every class folder holds folders of the same names ({enumerated(overview.shared_folders)}); if those are "
            "the classes, name the folders above them train, validation and test"
        )
    elif overview.splits_as_classes:
        warnings.append(
            f"{enumerated(overview.splits_as_classes)} are taken for classes; if splits are meant, name their folders "
            "train, validation and test, and leave no other folder with images beside them"
        )
    if overview.empty_classes:
        warnings.append(f"class folders without images, left out: {enumerated(overview.empty_classes)}")
    if overview.hidden_classes:
        warnings.append(
            f"hidden folders with images, left out: {enumerated(overview.hidden_classes)}; rename those that are "
            "classes"
        )
    if lost:
        warnings.append(f"classes without a readable image, left out: {enumerated(lost)}")
    if twins := _twins(surviving):
        warnings.append(f"classes whose names differ in nothing but upper and lower case: {enumerated(twins)}")
    return [*warnings, *_split_warnings(surviving, splits)]


def _split_warnings(surviving: Set[str], splits: dict[str, dict[str, int]]) -> list[str]:
    warnings = []
    if missing := sorted(surviving - splits[VALIDATION_SPLIT].keys()):
        warnings.append(f"classes without an image in the validation split, not measured there: {enumerated(missing)}")
    if missing := sorted(surviving - splits[TEST_SPLIT].keys()):
        warnings.append(
            "classes without an image in the test split, so that the gates will refuse every release: "
            f"{enumerated(missing)}; add images of these classes, or remove them"
        )
    trained = sum(splits[TRAIN_SPLIT].values())
    if trained < _FEW_PER_CLASS * len(surviving):
        warnings.append(
            f"only {trained} training images for {len(surviving)} classes: the network learns from nothing but them; "
            "some hundred a class is where it begins to be useful"
        )
    return warnings


def _twins(names: Collection[str]) -> list[str]:
    """Returns the names that are not the only ones of their spelling."""
    spellings = Counter(name.casefold() for name in names)
    return sorted(name for name in names if spellings[name.casefold()] > 1)


def _repetition_warnings(repetitions: Repetitions, conflicting: Sequence[Sequence[Record]]) -> list[str]:
    warnings = []
    exact = [leak for leak in repetitions.leaks if leak.kind == "exact"]
    if exact:
        warnings.append(
            f"{len(exact)} images lie in more than one split folder, so figures on held-out images come out too "
            f"good; first: {enumerated(exact[0].paths)}"
        )
    if repetitions.alike is None:
        warnings.append(
            "too many images, or too many that look alike, to look for near-duplicates; only exact copies were looked "
            "for"
        )
    elif repetitions.alike:
        first = enumerated(repetitions.alike[0].paths)
        warnings.append(
            f"{repetitions.held_out_alike} held-out images look like one in another split (re-encoded, scaled or "
            f"slightly changed), so figures on held-out images may come out too good; first: {first}"
        )
    if conflicting:
        first = enumerated([record.path for record in conflicting[0]])
        warnings.append(f"{len(conflicting)} images lie in more than one class folder; first: {first}")
    return warnings
