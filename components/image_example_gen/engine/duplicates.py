"""Images that are there more than once: exact copies, and pictures that look the same."""

import bisect
import functools
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.image_example_gen.engine import likeness
from components.image_example_gen.engine.shard_summary import Record
from trainer_module.features import TRAIN_SPLIT

# A number of images whose hashes are compared within minutes; the work grows with its square.
_MOST_COMPARED = 4_000_000
# Of pairs of hashes that are close and from different splits; those of a camera that never moves come to many more, and
# would fill the memory. Small digits, of which many have close hashes, come to it at some 600,000.
_MOST_PAIRS = 4_000_000
# Of many pictures of one split that look the same, these are enough to say so.
_COMPARED_OF_A_KIND = 20
# Pairs of perceptual hashes whose images memory holds at the same time: some 100 MB, where each has a dozen of them.
# More of them take another pass over the records, of four seconds for a million.
_LOOKS_AT_ONCE = 20_000

# Goes through all records when it is called, so that memory need not hold them.
Records = Callable[[], Iterator[Record]]
# Path and split.
_Place = tuple[str, str]


# Not one of Pydantic's models, as there may be as many as there are images.
@dataclass(frozen=True, slots=True)
class Leak:
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
        alike: held-out images, each once with one of other content in another split that looks the same, likewise; of
            many that look the same only some. None where there are too many images, or too many that look the same.
    """

    copies: list[list[Record]]
    alike: list[Leak] | None

    @functools.cached_property
    def leaks(self) -> list[Leak]:
        """What lies in several splits."""
        straddling = [group for group in self.copies if len({record.split for record in group}) > 1]
        return [_leak("exact", map(_place, group)) for group in straddling] + (self.alike or [])

    @functools.cached_property
    def held_out_alike(self) -> int | None:
        """Number of the held-out images in `alike`: of two that are both held out, both; None where that is None."""
        if self.alike is None:
            return None
        places = {place for leak in self.alike for place in zip(leak.paths, leak.splits, strict=True)}
        return sum(split != TRAIN_SPLIT for _, split in places)


class Signatures:
    """What tells which images may be there more than once, in 17 bytes for each."""

    def __init__(self) -> None:
        """Begins with none."""
        self._contents, self._looks, self._masks = array("Q"), array("Q"), array("B")
        self._splits: dict[str, int] = {}

    def add(self, records: Iterable[Record]) -> None:
        """Takes images in."""
        for record in records:
            self._contents.append(_content(record))
            if record.likeness:
                self._looks.append(likeness.perceptual_hash(record.likeness))
                self._masks.append(1 << self._splits.setdefault(record.split, len(self._splits)))

    def repeated(self) -> set[int]:
        """Returns the contents that are there more than once, as `_content` tells them."""
        unique, counts = np.unique(np.asarray(self._contents), return_counts=True)
        return set(unique[counts > 1].tolist())

    def close_looks(self) -> np.ndarray | None:
        """Returns the pairs of perceptual hashes that are equal or close and come from different splits, uint64 [M, 2].

        None where there are too many images to compare, or too many that look the same.
        """
        if len(self._contents) > _MOST_COMPARED:
            return None
        unique, inverse = np.unique(np.asarray(self._looks), return_inverse=True)
        mask = np.zeros(len(unique), np.uint8)
        np.bitwise_or.at(mask, inverse, np.asarray(self._masks))
        close = likeness.close_pairs(unique, mask, _MOST_PAIRS)
        if close is None:
            return None
        in_several = np.flatnonzero(mask & (mask - 1))
        return unique[np.concatenate([np.column_stack([in_several, in_several]), close])]


def find_repetitions(signatures: Signatures, records: Records) -> Repetitions:
    """Finds images that are there more than once.

    Memory holds the records of copies, and for some time some of those that look the same.

    Args:
        signatures: of all images.
        records: all images.

    Returns:
        The exact copies, and the pictures in different splits that look the same.
    """
    close = signatures.close_looks()
    copies = _copies(signatures.repeated(), records)
    return Repetitions(copies, None if close is None else _alike(close, records))


def _copies(repeated: set[int], records: Records) -> list[list[Record]]:
    copies: dict[str, list[Record]] = defaultdict(list)
    for record in records() if repeated else ():
        if _content(record) in repeated:
            copies[record.sha256].append(record)
    groups = [sorted(group, key=_path) for group in copies.values() if len(group) > 1]
    return sorted(groups, key=lambda group: group[0].path)


def _alike(close: np.ndarray, records: Records) -> list[Leak]:
    # An image may look like many others, and is to be counted once.
    twins: dict[_Place, _Place] = {}
    for start in range(0, len(close), _LOOKS_AT_ONCE):
        some = close[start : start + _LOOKS_AT_ONCE].tolist()
        looks = _of_looks({look for pair in some for look in pair}, records)
        for look, other_look in some:
            for held_out, twin in _near([*looks[look].values(), *looks[other_look].values()]):
                twins[held_out] = min(twin, twins.get(held_out, twin), key=_precedence)
    leaks = {_leak("near", sorted(pair)) for pair in twins.items()}
    return sorted(leaks, key=lambda leak: leak.paths)


def _of_looks(wanted: set[int], records: Records) -> dict[int, dict[str, list[Record]]]:
    """Returns the first images of each split, by path, that have these perceptual hashes."""
    looks: dict[int, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records():
        if record.likeness and (look := likeness.perceptual_hash(record.likeness)) in wanted:
            some = looks[look][record.split]
            # In whatever order they come.
            bisect.insort(some, record, key=_path)
            del some[_COMPARED_OF_A_KIND:]
    return looks


def _near(groups: Iterable[list[Record]]) -> Iterator[tuple[_Place, _Place]]:
    """Returns each held-out image with one of another split, where there is one that looks the same."""
    both = {record.path: record for group in groups for record in group}
    records = sorted(both.values(), key=lambda record: _precedence(_place(record)))
    for held_out in records:
        if held_out.split != TRAIN_SPLIT and (twin := _twin(held_out, records)):
            yield _place(held_out), _place(twin)


def _twin(image: Record, others: Iterable[Record]) -> Record | None:
    """Returns the first image of another split that looks the same, and is no copy."""
    return next(
        (
            other
            for other in others
            if other.split != image.split
            and other.sha256 != image.sha256
            and likeness.alike(image.likeness, other.likeness)
        ),
        None,
    )


def _content(record: Record) -> int:
    """Returns the first 64 bits of the digest: enough to tell contents apart that may be repeated."""
    return int(record.sha256[:16], 16)


def _path(record: Record) -> str:
    return record.path


def _place(record: Record) -> _Place:
    return record.path, record.split


def _precedence(place: _Place) -> tuple[bool, str]:
    """Orders several that are alike: one to train on is the one that matters."""
    path, split = place
    return split != TRAIN_SPLIT, path


def _leak(kind: Literal["exact", "near"], places: Iterable[_Place]) -> Leak:
    paths, splits = zip(*places, strict=True)
    return Leak(kind=kind, paths=paths, splits=splits)
