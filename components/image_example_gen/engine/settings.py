"""Settings of ingest."""

from dataclasses import dataclass

from trainer_module.errors import UserError

# JPEG stores sides in 16 bits and libjpeg stops at this value.
_LARGEST_SIDE = 65_500
# Pillow takes anything larger for an attack.
_MOST_PIXELS = 178_956_970


@dataclass(frozen=True)
class IngestSettings:
    """What may be read, how it is split and when ingest gives up.

    Attributes:
        max_side: longest side, in pixels, of a stored image; larger ones are scaled down.
        max_pixels: an image with more pixels than this is quarantined before it is decoded.
        validation_fraction: share of the images that becomes the validation split, in (0, 1).
        test_fraction: share of the images that becomes the test split, in (0, 1).
        max_quarantined: largest share of quarantined files that a run survives, in [0, 1].
        shards: number of files per split, or None to choose it by the amount of data.
    """

    max_side: int = 1024
    max_pixels: int = 100_000_000
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    max_quarantined: float = 0.1
    shards: int | None = None

    def __post_init__(self) -> None:
        """Rejects values that make no sense.

        Raises:
            UserError: names the setting or parameter, its value and the range it must lie in.
        """
        _check("data.max_side", self.max_side, f"from 1 to {_LARGEST_SIDE}", 1 <= self.max_side <= _LARGEST_SIDE)
        _check("data.max_pixels", self.max_pixels, f"from 1 to {_MOST_PIXELS}", 1 <= self.max_pixels <= _MOST_PIXELS)
        for key, value in (
            ("data.validation_fraction", self.validation_fraction),
            ("data.test_fraction", self.test_fraction),
        ):
            _check(key, value, "more than 0 and less than 1", 0 < value < 1)
        held_out = self.validation_fraction + self.test_fraction
        _check("data.validation_fraction + data.test_fraction", held_out, "less than 1", held_out < 1)
        _check("data.max_quarantined", self.max_quarantined, "from 0 to 1", 0 <= self.max_quarantined <= 1)
        # Only a program that uses the component can set it.
        if self.shards is not None and self.shards < 1:
            raise UserError(f"ImageExampleGen's parameter shards is {self.shards}, but must be at least 1, or None")


def _check(key: str, value: float, allowed: str, valid: bool) -> None:
    if not valid:
        raise UserError(f"{key} is {value}, but must be {allowed}; change it in the settings")
