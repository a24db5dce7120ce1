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
# Of many pictures of one split that look the same, these are enough to say so.
_COMPARED_OF_A_KIND = 20

# Goes through all records when it is called, so that memory need not hold them.
Records = Callable[[], Iterator[Record]]


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
        alike: held-out images, each with one of other content in another split that looks the same, likewise; of many
            that look the same only some. None where there are too many images to compare.
    """

    copies: list[list[Record]]
    alike: list[tuple[Record, Record]] | None

    @functools.cached_property
    def leaks(self) -> list[Leak]:
        """What lies in several splits."""
        straddling = [group for group in self.copies if len({record.split for record in group}) > 1]
        return [_leak("exact", group) for group in straddling] + [_leak("near", pair) for pair in self.alike or ()]


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

    def close_looks(self) -> list[tuple[int, int]] | None:
        """Returns the pairs of perceptual hashes that are equal or close and come from different splits.

        None where there are too many images to compare.
        """
        if len(self._looks) > _MOST_COMPARED:
            return None
        unique, inverse = np.unique(np.asarray(self._looks), return_inverse=True)
        mask = np.zeros(len(unique), np.uint8)
        np.bitwise_or.at(mask, inverse, np.asarray(self._masks))
        itself = np.column_stack([np.arange(len(unique))] * 2)
        pairs = np.concatenate([itself, likeness.close_pairs(unique)])
        union = mask[pairs[:, 0]] | mask[pairs[:, 1]]
        several = (union & (union - 1)) != 0
        return [(int(unique[one]), int(unique[other])) for one, other in pairs[several]]


def find_repetitions(signatures: Signatures, records: Records) -> Repetitions:
    """Finds images that are there more than once.

    Memory holds the records of copies and of some that look the same.

    Args:
        signatures: of all images.
        records: all images.

    Returns:
        The exact copies, and the pictures in different splits that look the same.
    """
    repeated, close_looks = signatures.repeated(), signatures.close_looks()
    close = close_looks or []
    wanted = {look for pair in close for look in pair}
    copies: dict[str, list[Record]] = defaultdict(list)
    looks: dict[int, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records() if repeated or wanted else ():
        if _content(record) in repeated:
            copies[record.sha256].append(record)
        if record.likeness and (look := likeness.perceptual_hash(record.likeness)) in wanted:
            some = looks[look][record.split]
            # The first ones by path, in whatever order they come.
            bisect.insort(some, record, key=_path)
            del some[_COMPARED_OF_A_KIND:]
    groups = [sorted(group, key=_path) for group in copies.values() if len(group) > 1]
    groups.sort(key=lambda group: group[0].path)
    return Repetitions(groups, None if close_looks is None else _alike(close, looks))


def _alike(close: Iterable[tuple[int, int]], looks: dict[int, dict[str, list[Record]]]) -> list[tuple[Record, Record]]:
    pairs: set[tuple[Record, Record]] = set()
    for look, other_look in close:
        both = {record.path: record for at in (look, other_look) for some in looks[at].values() for record in some}
        # Of several that are alike, one to train on is the one that matters.
        records = sorted(both.values(), key=lambda record: (record.split != TRAIN_SPLIT, record.path))
        for held_out in records:
            if held_out.split != TRAIN_SPLIT and (twin := _twin(held_out, records)):
                pairs.add((held_out, twin) if held_out.path < twin.path else (twin, held_out))
    return sorted(pairs, key=lambda pair: (pair[0].path, pair[1].path))


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


def _leak(kind: Literal["exact", "near"], records: Iterable[Record]) -> Leak:
    group = tuple(records)
    return Leak(kind=kind, paths=tuple(r.path for r in group), splits=tuple(r.split for r in group))
