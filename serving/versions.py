"""Which versions of the model are served: the newest, or a pinned one with a canary beside it, reloaded as pushed."""

import logging
import random
import time
import timeit
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from serving.bundle import Bundle, complete_versions, find_base, is_bundle, latest_version, load_bundle
from serving.errors import NotFoundError, ServingError
from serving.options import ServerOptions
from serving.predictor import Predictor

STABLE: Final = "stable"
CANARY: Final = "canary"

# A version that could not be loaded is tried again, because its file system may have been out of reach.
_RETRY_S = 30.0
# A probability of a quantised model is off by at most half a step of 1/256.
_SUM_TOLERANCE_PER_LABEL = 1 / 256
_TIMED_RUNS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedVersion:
    """A version that answers.

    Attributes:
        number: The version.
        bundle: Its files.
        predictor: Has run already.
        seconds_per_image: Time that the interpreter takes for an image while nothing else runs.
    """

    number: int
    bundle: Bundle
    predictor: Predictor
    seconds_per_image: float


class VersionState(NamedTuple):
    """What became of a version.

    Attributes:
        number: The version.
        error: Why it is not served; None where it is.
    """

    number: int
    error: str | None


class _Failure(NamedTuple):
    at: float
    reason: str


class ServedVersions:
    """The versions that requests are answered with.

    `refresh` is called by one thread at a time; requests of any thread see either the versions before or those after.
    A request keeps the version it began with, whose memory is freed when the last such request is answered.
    """

    def __init__(self, out: Path, options: ServerOptions, interpreters: int) -> None:
        """Loads the versions that are to be served.

        Args:
            out: A run's output folder, its folder of versions, or one bundle, which then is the only version.
            options: `version` pins; `canary_share` gives the newest version a share.
            interpreters: Interpreters of each version.

        Raises:
            ServingError: No version can be loaded, or the pinned one cannot.
        """
        self._only = out if is_bundle(out) else None
        self._base = out if self._only else find_base(out)
        self._options = options
        self._interpreters = interpreters
        self._failures: dict[int, _Failure] = {}
        self._served: tuple[ServedVersion, ...] = ()
        self._served = self._load_first()

    @property
    def stable(self) -> ServedVersion:
        """The version of all requests that are not a canary's."""
        return self._served[0]

    @property
    def served(self) -> tuple[ServedVersion, ...]:
        """The versions that answer now: the stable one, and the canary where there is one."""
        return self._served

    def any(self) -> ServedVersion:
        """Picks the version for a request that names none, by `canary_share`."""
        stable, *canaries = self._served
        # Not for security: it only divides the traffic.
        if canaries and random.random() < self._options.canary_share:  # noqa: S311
            return canaries[0]
        return stable

    def numbered(self, version: str) -> ServedVersion:
        """Returns a version by its number.

        Raises:
            NotFoundError: It is not served.
        """
        for served in self.served:
            if str(served.number) == version:
                return served
        raise NotFoundError("this version of the model is not served")

    def labelled(self, label: str) -> ServedVersion:
        """Returns a version by its label, "stable" or "canary".

        Raises:
            ServingError: No version has the label.
        """
        labelled = dict(zip((STABLE, CANARY), self._served, strict=False))
        if label in labelled:
            return labelled[label]
        raise ServingError("unrecognized version label: the labels are stable and, while one is tried, canary")

    def states(self) -> list[VersionState]:
        """Lists the served versions, and those that were refused, the newest first."""
        served = {version.number: VersionState(version.number, None) for version in self._served}
        refused = {
            number: VersionState(number, failure.reason)
            for number, failure in self._failures.items()
            if number not in served
        }
        return [state for _, state in sorted({**refused, **served}.items(), reverse=True)]

    def refresh(self) -> bool:
        """Looks for versions that were pushed or removed, and serves what is to be served now.

        A version that cannot be loaded or does not answer is refused, and what was served stays.

        Returns:
            Whether anything changed.
        """
        if self._only:
            return False
        try:
            available = complete_versions(self._base)
        except ServingError as error:
            logger.warning("looking for versions failed: %s", error)
            return False
        self._failures = {number: failure for number, failure in self._failures.items() if number in available}
        stable = self.stable if self._options.version is not None else self._newest(available) or self.stable
        served = self._with_canary(stable, available)
        changed = served != self._served
        self._served = served
        if changed:
            logger.info("serving version %s", " and canary ".join(str(version.number) for version in served))
        return changed

    def _load_first(self) -> tuple[ServedVersion, ...]:
        if self._only:
            name = self._only.resolve().name
            number = int(name) if name.isascii() and name.isdigit() else 1
            return (_load(number, self._only, self._interpreters),)
        available = complete_versions(self._base)
        if self._options.version is not None:
            if self._options.version not in available:
                raise ServingError(f"{self._base}: has no version {self._options.version}: change serving.version")
            stable = _load(self._options.version, available[self._options.version], self._interpreters)
            return self._with_canary(stable, available)
        newest = self._newest(available)
        if newest is None:
            # Says so itself where there is no version at all.
            latest = latest_version(self._base)
            raise ServingError(self._failures[int(latest.name)].reason)
        return (newest,)

    def _with_canary(self, stable: ServedVersion, available: dict[int, Path]) -> tuple[ServedVersion, ...]:
        newer = {number: path for number, path in available.items() if number > stable.number}
        canary = self._newest(newer) if self._options.canary_share else None
        return (stable, canary) if canary else (stable,)

    def _newest(self, available: dict[int, Path]) -> ServedVersion | None:
        """Returns the newest version that can be served; a served one is not loaded again."""
        known = {version.number: version for version in self._served}
        for number, directory in available.items():
            version = known.get(number) or self._try(number, directory)
            if version:
                return version
        return None

    def _try(self, number: int, directory: Path) -> ServedVersion | None:
        failure = self._failures.get(number)
        if failure and time.monotonic() - failure.at < _RETRY_S:
            return None
        try:
            version = _load(number, directory, self._interpreters)
        except ServingError as error:
            if failure is None:
                logger.error("version %d is refused: %s", number, error)  # noqa: TRY400 - the user's line says it all
            self._failures[number] = _Failure(time.monotonic(), str(error))
            return None
        self._failures.pop(number, None)
        return version


def _load(number: int, directory: Path, interpreters: int) -> ServedVersion:
    bundle = load_bundle(directory)
    predictor = Predictor(bundle, interpreters=interpreters)
    return ServedVersion(number, bundle, predictor, seconds_per_image=warm_up(predictor, bundle))


def warm_up(predictor: Predictor, bundle: Bundle) -> float:
    """Runs every interpreter of a predictor, on gray, and looks at the answer.

    Args:
        predictor: The predictor.
        bundle: Its files; for messages.

    Returns:
        The shortest time of a run, in seconds.

    Raises:
        ServingError: The model fails, or what it answers are not probabilities.
    """
    gray = np.full((1, predictor.image_size, predictor.image_size, 3), 128, np.uint8)
    for probabilities in predictor.predict_with_all(gray):
        tolerance = 0.01 + len(predictor.labels) * _SUM_TOLERANCE_PER_LABEL
        if not np.isfinite(probabilities).all() or abs(float(probabilities.sum()) - 1) > tolerance:
            raise ServingError(f"{bundle.directory}: what it answers are not probabilities: push another version")
    # The first runs make room for what the later ones need.
    return min(timeit.repeat(lambda: predictor.predict(gray), number=1, repeat=_TIMED_RUNS))
