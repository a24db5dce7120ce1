"""Figures as people read them."""

from __future__ import annotations

from components.release_gate.paired import share_interval

NO_VALUE = "–"  # noqa: RUF001 (a dash for no value)


def percent(share: float | None) -> str:
    """Returns a share as percents with two decimals; a dash for None."""
    return NO_VALUE if share is None else f"{100 * share:.2f} %"


def kilobytes(size: float | None) -> str:
    """Returns bytes as kB, which are 1,000 bytes; a dash for None."""
    return NO_VALUE if size is None else f"{size / 1000:,.1f} kB"


def number(value: float | None, form: str = ".4g") -> str:
    """Returns a number in a format; a dash for None."""
    return NO_VALUE if value is None else format(value, form)


def interval_text(share: float | None, photos: int) -> str:
    """Returns the exact 95 % interval of a share of photos; "" where there is nothing to tell."""
    if share is None or not photos:
        return ""
    interval = share_interval(round(share * photos), photos)
    ends = f"{100 * interval.lower:.1f} to {100 * interval.upper:.1f} %"
    return f"{ends} with {100 * interval.confidence:.0f} % confidence, {photos:,} photos"
