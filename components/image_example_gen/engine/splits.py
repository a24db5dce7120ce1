"""Which split an image goes to."""

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from components.image_example_gen.engine.decoding import LoadedImage, Rejected, load_image, read_bytes
from components.image_example_gen.engine.listing import ImageFile, Listing
from components.image_example_gen.engine.settings import IngestSettings
from trainer_module.features import TEST_SPLIT, TRAIN_SPLIT, VALIDATION_SPLIT

# A class so large that hashing leaves one of its splits empty less often than this needs no second look.
_NEGLIGIBLE = 1e-9
# In order of need: what has no image to train on stops the run, what has none to test is refused by the gates.
_NEEDED = (TRAIN_SPLIT, TEST_SPLIT, VALIDATION_SPLIT)


@dataclass(frozen=True)
class SplitRule:
    """Splits by a hash of the content, so that copies of a file never straddle splits.

    The first bits of the content's SHA-256 are a number u, uniform in [0, 1): the lowest share is the test split, the
    highest the validation split, all between them the train split. So the split of an image depends on nothing but its
    content and the two fractions, stays when other images join, and changing one held-out fraction leaves the other
    held-out split alone.

    Hashing alone may leave a split of a small class empty. For those classes `moves` overrides the hash: each class
    with at least three distinct readable images has one in each split, by moving the image whose u is nearest to the
    empty split. Of two images one is for training, the other for the test, without which the gates refuse a class; a
    single one is for training. An image that lies in two small classes at once is never moved, since that would mend
    one class and may break the other.

    A split for which the user has a folder takes no part: it holds what is in the folder.

    Attributes:
        validation_fraction: share of the distributed images that goes to validation; 0 if the user has such a folder.
        test_fraction: likewise for test.
        moves: split by hex digest of the content, for the images that go elsewhere than the hash says.
    """

    validation_fraction: float
    test_fraction: float
    moves: dict[str, str] = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        """The splits that images are distributed over, train first."""
        return [split for split, (low, high) in self._ranges().items() if low < high]

    def split_of(self, file: ImageFile, sha256: str) -> str:
        """Returns the split of an image, given the hex digest of its content."""
        if not self.distributes(file):
            return str(file.split)
        return self.moves.get(sha256) or self.by_hash(sha256)

    def distributes(self, file: ImageFile) -> bool:
        """Tells whether a hash decides on this file, rather than the folder it lies in."""
        return file.split is None or (file.split == TRAIN_SPLIT and len(self.targets) > 1)

    def by_hash(self, sha256: str) -> str:
        """Returns the split that the content's hash alone gives."""
        return min(self.targets, key=lambda split: self.distance(sha256, split))

    def distance(self, sha256: str, split: str) -> float:
        """Returns how far u is from the range of a split; 0 within it."""
        u = _uniform(sha256)
        low, high = self._ranges()[split]
        return max(low - u, u - high, 0.0)

    def _ranges(self) -> dict[str, tuple[float, float]]:
        validation_start = 1 - self.validation_fraction
        return {
            TRAIN_SPLIT: (self.test_fraction, validation_start),
            VALIDATION_SPLIT: (validation_start, 1.0),
            TEST_SPLIT: (0.0, self.test_fraction),
        }

    def largest_small_class(self) -> int:
        """Returns the number of images above which a split is empty with negligible probability.

        The probability that n images all miss a split of share f is (1 - f) ** n.
        """
        ranges = self._ranges()
        smallest = min(ranges[split][1] - ranges[split][0] for split in self.targets)
        return math.ceil(math.log(_NEGLIGIBLE) / math.log1p(-smallest)) if smallest < 1 else 0


def plan_splits(listing: Listing, settings: IngestSettings) -> SplitRule:
    """Makes the rule for a data folder.

    Reads the files of small classes (about 200 images at a share of 0.1) to see whether hashing serves them all;
    larger ones are not touched.

    Args:
        listing: the images of the data folder.
        settings: fractions, and the limits that decide whether an image is readable.

    Returns:
        The rule, with the moves that small classes need.
    """
    own = {file.split for file in listing.files}
    rule = SplitRule(
        validation_fraction=0 if VALIDATION_SPLIT in own else settings.validation_fraction,
        test_fraction=0 if TEST_SPLIT in own else settings.test_fraction,
    )
    contents = _contents_of_small_classes(listing, rule)
    appearances = Counter(sha256 for paths in contents.values() for sha256 in paths)
    moves: dict[str, str] = {}
    for paths in contents.values():
        moves.update(_moves(rule, paths, appearances, settings))
    return replace(rule, moves=moves)


def _contents_of_small_classes(listing: Listing, rule: SplitRule) -> dict[str, dict[str, Path]]:
    """Returns a path for each distinct content, by class and digest, in order of the names of the classes."""
    distributed = [file for file in listing.files if rule.distributes(file)]
    sizes = Counter(file.class_name for file in distributed)
    contents: dict[str, dict[str, Path]] = defaultdict(dict)
    most = rule.largest_small_class()
    for file in distributed:
        if sizes[file.class_name] <= most:
            path = listing.root / file.path
            data = read_bytes(path)
            if not isinstance(data, Rejected):
                contents[file.class_name].setdefault(hashlib.sha256(data).hexdigest(), path)
    return dict(sorted(contents.items()))


def _moves(
    rule: SplitRule, paths: dict[str, Path], appearances: Counter[str], settings: IngestSettings
) -> dict[str, str]:
    """Returns the images of one class that must go elsewhere than the hash says."""
    members: dict[str, list[str]] = {split: [] for split in rule.targets}
    for sha256 in paths:
        members[rule.by_hash(sha256)].append(sha256)
    # Usually the first file of each split is readable, and that is all there is to find out.
    if all(any(_is_readable(paths[sha256], settings) for sha256 in group) for group in members.values()):
        return {}
    members = {
        split: [sha256 for sha256 in group if _is_readable(paths[sha256], settings)] for split, group in members.items()
    }
    moves: dict[str, str] = {}
    for split in sorted(rule.targets, key=_NEEDED.index):
        donor = max(members, key=lambda name: (_spare(name, members, split) > 0, len(members[name])))
        movable = [sha256 for sha256 in members[donor] if appearances[sha256] == 1]
        if not members[split] and movable and _spare(donor, members, split):
            chosen = min(movable, key=lambda sha256: (rule.distance(sha256, split), sha256))
            members[donor].remove(chosen)
            members[split].append(chosen)
            moves[chosen] = split
    return moves


def _spare(donor: str, members: dict[str, list[str]], split: str) -> int:
    """Returns how many images a split can give: to one that is needed less than it is, not its last."""
    return len(members[donor]) - (_NEEDED.index(donor) < _NEEDED.index(split))


def _is_readable(path: Path, settings: IngestSettings) -> bool:
    return isinstance(load_image(path, settings.max_side, settings.max_pixels), LoadedImage)


def _uniform(sha256: str) -> float:
    """Maps the first 52 bits of a hex digest to [0, 1), exactly."""
    return int(sha256[:13], 16) / 2**52
