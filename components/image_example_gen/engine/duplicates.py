"""Images that are there more than once: exact copies, and pictures that look the same."""

import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel

from components.image_example_gen.engine import likeness
from components.image_example_gen.engine.shard_summary import Record

# A number of images whose hashes are compared within minutes; the work grows with its square.
_MOST_COMPARED = 4_000_000
# Of many pictures of one split that look the same, these are enough to say so.
_COMPARED_OF_A_KIND = 50

# Goes through all records, as often as it is called, so that memory need not hold them.
Records = Callable[[], Iterator[Record]]


class Leak(BaseModel, frozen=True):
    """Images of one content or look that lie in several splits, so that a network is asked what it was told.

    Attributes:
        kind: "exact" copies, or "near" ones: re-encoded, scaled or slightly changed.
        paths: printable paths relative to the data folder.
        splits: the split of each.
    """

    kind: Literal["exact", "near"]
    paths: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Repetitions:
    """What is there more than once.

    Attributes:
        copies: groups of files of the same content, ordered by their first paths.
        alike: pairs of files of other content in different splits that look the same, likewise; None where there are
            too many images to compare.
    """

    copies: list[list[Record]]
    alike: list[tuple[Record, Record]] | None

    @property
    def leaks(self) -> list[Leak]:
        """What lies in several splits."""
        straddling = [group for group in self.copies if len({record.split for record in group}) > 1]
        return [_leak("exact", group) for group in straddling] + [_leak("near", pair) for pair in self.alike or ()]


def find_repetitions(records: Records) -> Repetitions:
    """Finds images that are there more than once.

    Memory holds 17 bytes for each image, and the records of those that may be repeated.

    Args:
        records: all images.

    Returns:
        The exact copies, and the pictures in different splits that look the same.
    """
    contents = np.fromiter((_content(record) for record in records()), np.uint64)
    repeated = _repeated(contents)
    comparable = len(contents) <= _MOST_COMPARED
    close = _close_hashes(records) if comparable else []
    wanted = {look for pair in close for look in pair}
    copies: dict[str, list[Record]] = defaultdict(list)
    looks: dict[int, dict[str, Record]] = defaultdict(dict)
    for record in records() if repeated or wanted else ():
        if _content(record) in repeated:
            copies[record.sha256].append(record)
        if record.likeness and (look := likeness.perceptual_hash(record.likeness)) in wanted:
            # Copies are reported as such.
            looks[look].setdefault(f"{record.split} {record.sha256}", record)
    groups = [sorted(group, key=_path) for group in copies.values() if len(group) > 1]
    groups.sort(key=lambda group: group[0].path)
    return Repetitions(groups, _alike(close, looks) if comparable else None)


def _close_hashes(records: Records) -> list[tuple[int, int]]:
    """Returns the pairs of perceptual hashes that are equal or close and come from different splits."""
    splits: dict[str, int] = {}
    looks, masks = array("Q"), array("B")
    for record in records():
        if record.likeness:
            looks.append(likeness.perceptual_hash(record.likeness))
            masks.append(1 << splits.setdefault(record.split, len(splits)))
    unique, inverse = np.unique(np.asarray(looks, np.uint64), return_inverse=True)
    mask = np.zeros(len(unique), np.uint8)
    np.bitwise_or.at(mask, inverse, np.asarray(masks))
    itself = np.column_stack([np.arange(len(unique))] * 2)
    pairs = np.concatenate([itself, likeness.close_pairs(unique)])
    union = mask[pairs[:, 0]] | mask[pairs[:, 1]]
    several = (union & (union - 1)) != 0
    return [(int(unique[one]), int(unique[other])) for one, other in pairs[several]]


def _alike(close: Iterable[tuple[int, int]], looks: dict[int, dict[str, Record]]) -> list[tuple[Record, Record]]:
    pairs: set[tuple[Record, Record]] = set()
    for one, other in close:
        for first, second in itertools.product(*(_some_of_each_split(looks[look].values()) for look in (one, other))):
            different = first.split != second.split and first.sha256 != second.sha256
            if different and likeness.alike(first.likeness, second.likeness):
                pairs.add((first, second) if first.path < second.path else (second, first))
    return sorted(pairs, key=lambda pair: (pair[0].path, pair[1].path))


def _some_of_each_split(records: Iterable[Record]) -> list[Record]:
    taken: Counter[str] = Counter()
    some = []
    for record in sorted(records, key=_path):
        if taken[record.split] < _COMPARED_OF_A_KIND:
            taken[record.split] += 1
            some.append(record)
    return some


def _repeated(numbers: np.ndarray) -> set[int]:
    unique, counts = np.unique(numbers, return_counts=True)
    return set(unique[counts > 1].tolist())


def _content(record: Record) -> int:
    """Returns the first 64 bits of the digest: enough to tell contents apart that may be repeated."""
    return int(record.sha256[:16], 16)


def _path(record: Record) -> str:
    return record.path


def _leak(kind: Literal["exact", "near"], records: Iterable[Record]) -> Leak:
    group = tuple(records)
    return Leak(kind=kind, paths=tuple(r.path for r in group), splits=tuple(r.split for r in group))
