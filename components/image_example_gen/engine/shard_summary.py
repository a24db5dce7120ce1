"""What became of the files of one shard."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, Field

from components.image_example_gen.engine.decoding import LoadedImage
from components.image_example_gen.engine.quarantine import Quarantined


# Not one of Pydantic's models: those take a kilobyte more of memory each.
class Record(NamedTuple):
    """Where one image went.

    Attributes:
        path: printable path relative to the data folder.
        class_name: its label.
        split: the split that it was written to.
        sha256: hex digest of the file's content.
        likeness: what it looks like, see `likeness.describe`.
    """

    path: str
    class_name: str
    split: str
    sha256: str
    likeness: str


class ShardSummary(BaseModel):
    """What became of the files of one shard; travels as a line of JSON.

    Attributes:
        columns: the images that were written: of each field of a `Record`, the values. Python's garbage collector
            looks after every record that exists, and after no text.
        quarantined: the files that were not.
        widths: number of images by width in pixels, upright, before capping.
        heights: number of images by height in pixels, likewise.
        brightness: sum of the images' brightness.
        stored: number of images by what is stored: "original" bytes, or a new "jpeg" or "png".
    """

    columns: list[list[str]] = Field(default_factory=lambda: [list[str]() for _ in Record._fields])
    quarantined: list[Quarantined] = Field(default_factory=list)
    widths: Counter[int] = Field(default_factory=Counter)
    heights: Counter[int] = Field(default_factory=Counter)
    brightness: float = 0.0
    stored: Counter[str] = Field(default_factory=Counter)

    @property
    def records(self) -> Iterator[Record]:
        """The images that were written."""
        return map(Record._make, zip(*self.columns, strict=True))

    def add(self, record: Record, image: LoadedImage) -> None:
        """Counts one written image."""
        for column, value in zip(self.columns, record, strict=True):
            column.append(value)
        self.widths[image.source_width] += 1
        self.heights[image.source_height] += 1
        self.brightness += image.brightness
        self.stored["original" if image.original else image.stored_format] += 1
