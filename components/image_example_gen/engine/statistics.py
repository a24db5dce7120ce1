"""What was read, in figures: per shard, and for the whole data folder."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, Field

from components.image_example_gen.engine.decoding import LoadedImage
from components.image_example_gen.engine.listing import Listing, fingerprint
from components.image_example_gen.engine.quarantine import Quarantined, printable
from trainer_module.features import SPLITS, TRAIN_SPLIT

# Warnings name this many classes or files; the report's other files have them all.
_NAMED = 5


class Record(BaseModel, frozen=True):
    """Where one image went.

    Attributes:
        path: printable path relative to the data folder.
        class_name: its label.
        split: the split that it was written to.
        sha256: hex digest of the file's content.
    """

    path: str
    class_name: str
    split: str
    sha256: str


class ShardSummary(BaseModel):
    """What became of the files of one shard; travels as a line of JSON.

    Attributes:
        records: the images that were written.
        quarantined: the files that were not.
        widths: number of images by width in pixels, upright, before capping.
        heights: number of images by height in pixels, likewise.
        brightness: sum of the images' brightness.
        stored: number of images by what is stored: "original" bytes, or a new "jpeg" or "png".
    """

    records: list[Record] = Field(default_factory=list)
    quarantined: list[Quarantined] = Field(default_factory=list)
    widths: Counter[int] = Field(default_factory=Counter)
    heights: Counter[int] = Field(default_factory=Counter)
    brightness: float = 0.0
    stored: Counter[str] = Field(default_factory=Counter)

    def add(self, record: Record, image: LoadedImage) -> None:
        """Counts one written image."""
        self.records.append(record)
        self.widths[image.source_width] += 1
        self.heights[image.source_height] += 1
        self.brightness += image.brightness
        self.stored["original" if image.original else image.stored_format] += 1


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
    """Exact copies: files beyond the first of their content, and contents that lie in several splits or classes."""

    copies: int
    in_several_splits: int
    in_several_classes: int


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
        duplicates: exact copies.
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


def summarise(listing: Listing, total: ShardSummary) -> IngestStatistics:
    """Makes the figures for the whole data folder.

    Args:
        listing: what was found.
        total: what became of it, all shards merged.

    Returns:
        The content of `ingest.json`.
    """
    used = len(total.records)
    splits = _count_by_split_and_class(total.records)
    copies = _copies(total.records)
    straddling = [group for group in copies if len({record.split for record in group}) > 1]
    conflicting = [group for group in copies if len({record.class_name for record in group}) > 1]
    return IngestStatistics(
        data=printable(str(listing.root)),
        fingerprint=fingerprint(listing),
        images=ImageCounts(
            read=used + len(total.quarantined),
            used=used,
            quarantined=len(total.quarantined),
            ignored=sum(listing.ignored.values()),
        ),
        splits=splits,
        width=_spread(total.widths),
        height=_spread(total.heights),
        brightness=total.brightness / used if used else 0.0,
        stored=dict(sorted(total.stored.items())),
        ignored=listing.ignored,
        duplicates=Duplicates(
            copies=sum(len(group) - 1 for group in copies),
            in_several_splits=len(straddling),
            in_several_classes=len(conflicting),
        ),
        warnings=[*_class_warnings(listing, splits), *_copy_warnings(straddling, conflicting)],
    )


def merge(listing: Listing, summaries: Iterable[ShardSummary]) -> ShardSummary:
    """Adds up the shards, and joins what the listing quarantined.

    The order of the shards makes no difference: records and quarantined files are sorted by path.
    """
    total = ShardSummary(quarantined=list(listing.quarantined))
    for summary in summaries:
        total.records += summary.records
        total.quarantined += summary.quarantined
        total.widths += summary.widths
        total.heights += summary.heights
        total.brightness += summary.brightness
        total.stored += summary.stored
    total.records.sort(key=lambda record: record.path)
    total.quarantined.sort(key=lambda item: item.path)
    return total


def _count_by_split_and_class(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    counts = Counter((record.split, record.class_name) for record in records)
    return {split: {name: counts[split, name] for at, name in sorted(counts) if at == split} for split in SPLITS}


def _copies(records: Iterable[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.sha256].append(record)
    return [group for group in groups.values() if len(group) > 1]


def _spread(counts: Counter[int]) -> Spread | None:
    values = sorted(counts.elements())
    return Spread(min=values[0], median=values[len(values) // 2], max=values[-1]) if values else None


def _class_warnings(listing: Listing, splits: dict[str, dict[str, int]]) -> list[str]:
    surviving = {name for counts in splits.values() for name in counts}
    lost = sorted({file.class_name for file in listing.files} - surviving)
    warnings = []
    if listing.shared_folders:
        warnings.append(
            f"every class folder holds folders of the same names ({_names(listing.shared_folders)}); if those are the "
            "classes, name the folders above them train, validation and test"
        )
    if listing.empty_classes:
        warnings.append(f"class folders without images, left out: {_names(listing.empty_classes)}")
    if lost:
        warnings.append(f"classes without a readable image, left out: {_names(lost)}")
    for split in SPLITS:
        missing = sorted(surviving - splits[split].keys())
        if missing and split != TRAIN_SPLIT:
            warnings.append(f"classes without an image in the {split} split, not measured there: {_names(missing)}")
    return warnings


def _copy_warnings(straddling: Sequence[Sequence[Record]], conflicting: Sequence[Sequence[Record]]) -> list[str]:
    warnings = []
    if straddling:
        first = _names([record.path for record in straddling[0]])
        warnings.append(
            f"{len(straddling)} images lie in more than one split folder, so figures on held-out images come out too "
            f"good; first: {first}"
        )
    if conflicting:
        first = _names([record.path for record in conflicting[0]])
        warnings.append(f"{len(conflicting)} images lie in more than one class folder; first: {first}")
    return warnings


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
