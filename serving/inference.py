"""The way of a request through a worker: admission, the wait for a thread, decoding, the interpreter, the answer."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving import metrics
from serving.errors import OverloadedError, ServingError, UnavailableError
from serving.options import ServerOptions
from serving.preprocessing import decode_image, to_pixels
from serving.sampling import Sampler
from serving.versions import ServedVersion, ServedVersions

TOO_MANY: Final = "too many requests are waiting: try again in a moment"

Answer = TypeVar("Answer")

# How old the last success may be for the model to count as able to answer, and how long a probe may take.
_FRESH_S = 1.0
_PROBE_S = 2.0
# A request that takes less than this is computed at once: handing it to a thread and back takes a good part of it, and
# probes wait no longer than they would for Python's lock.
_SHORT_S = 0.0005
_TOO_LATE = "the model takes too long to answer: try again later"


class _FilesError(Exception):
    """A request has image files after all."""


@dataclass(frozen=True)
class Classified:
    """The answer for the images of a request.

    Attributes:
        version: The version that gave it.
        labels: The class of each of the N images.
        probabilities: float32 [N, number of labels].
    """

    version: ServedVersion
    labels: list[str]
    probabilities: NDArray[np.float32]


class Classifier:
    """Classifies the images of one request with one version, inside the limits of a request."""

    def __init__(
        self, version: ServedVersion, options: ServerOptions, sampler: Sampler | None, *, takes_files: bool = True
    ) -> None:
        """Makes the classifier of one request.

        Args:
            version: What it classifies with.
            options: Has the limits.
            sampler: Keeps some of the images; None keeps none.
            takes_files: Whether it decodes image files, which may take long.
        """
        self.version = version
        self._options = options
        self._sampler = sampler
        self._takes_files = takes_files
        self._pixels_left = options.max_pixels
        self._files: dict[int, bytes] = {}

    @property
    def image_size(self) -> int:
        """Height and width of the model's input, in pixels."""
        return self.version.predictor.image_size

    def decode(
        self, items: Sequence[Any], item_name: str, read: Callable[[Any, int], bytes | NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Reads images, and decodes and resizes those that are files.

        Args:
            items: The images, in whatever form they came.
            item_name: What messages call one of them, before its index; empty where there is only one.
            read: Returns an item's image file, or its pixels [S, S, 3], given S.

        Returns:
            RGB pixels, uint8 [N, S, S, 3].

        Raises:
            ServingError: There are too many or none, one is not an image, or all together have too many pixels.
        """
        self.check_count(len(items))
        pixels = np.empty((len(items), self.image_size, self.image_size, 3), np.uint8)
        for index, item in enumerate(items):
            try:
                image = read(item, self.image_size)
                pixels[index] = image if isinstance(image, np.ndarray) else self._decode_file(index, image)
            except ServingError as error:
                raise type(error)(f"{item_name} {index}: {error}" if item_name else str(error)) from error
        return pixels

    def check_count(self, count: int) -> None:
        """Checks the number of images of a request.

        Raises:
            ServingError: There are none, or more than `max_instances`.
        """
        if count == 0:
            raise ServingError("no images in the request")
        if count > self._options.max_instances:
            raise ServingError(f"{count} images in one request are more than the {self._options.max_instances} allowed")

    def classify(self, pixels: NDArray[np.uint8]) -> Classified:
        """Computes the classes of images, and counts them.

        Args:
            pixels: RGB pixels, uint8 [N, S, S, 3].

        Returns:
            The answer.
        """
        with metrics.stage_seconds("invoke").time():
            probabilities = self.version.predictor.predict(pixels)
        best = probabilities.argmax(axis=1)
        labels = [self.version.bundle.labels[index] for index in best]
        confidences = probabilities[np.arange(len(best)), best]
        metrics.observe_images(str(self.version.number), pixels, labels, confidences)
        if self._sampler:
            for index, data in self._files.items():
                self._sampler.offer(data, labels[index], probabilities[index], self.version)
        return Classified(self.version, labels, probabilities)

    def _decode_file(self, index: int, data: bytes) -> NDArray[np.uint8]:
        if not self._takes_files:
            raise _FilesError
        image = decode_image(data, self._pixels_left)
        if self._sampler:
            self._files[index] = data
        self._pixels_left -= image.width * image.height
        return to_pixels(image, self.image_size)


class Inference:
    """Runs requests in a few threads, lets a bounded number wait, and refuses the others at once."""

    def __init__(self, versions: ServedVersions, options: ServerOptions, threads: int) -> None:
        """Starts the threads.

        Args:
            versions: What is served.
            options: Has the limits.
            threads: Requests that are computed at the same time.
        """
        self.versions = versions
        self.options = options
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._most_pending = threads + options.queue
        self._pending = 0
        self._sampler = Sampler.of(options)
        self._threads = threads
        self._last_success = time.monotonic()
        # When each of the requests that are being computed was begun.
        self._begun: dict[object, float] = {}
        self._probe: asyncio.Future[NDArray[np.float32]] | None = None

    @property
    def has_room(self) -> bool:
        """Whether one more request may come in."""
        return self._pending < self._most_pending

    async def run(
        self, version: ServedVersion, answer: Callable[[Classifier], Answer], most_images: float = math.inf
    ) -> Answer:
        """Computes the answer of one request in a thread; the event loop goes on meanwhile.

        Where no other request is being computed, and this one has few images whose pixels need no decoding, the event
        loop does it itself.

        Args:
            version: What to classify with.
            answer: Makes the answer.
            most_images: How many images it has at most, if all of them are pixels, as it seems.

        Returns:
            What `answer` returned.

        Raises:
            OverloadedError: Too many are waiting.
            UnavailableError: There is no answer after `timeout_s`.
        """
        if not self.has_room:
            raise OverloadedError(TOO_MANY)
        if not self._pending and most_images * version.seconds_per_image < _SHORT_S:
            with suppress(_FilesError):
                result = answer(Classifier(version, self.options, self._sampler, takes_files=False))
                self._last_success = time.monotonic()
                return result
        classifier = Classifier(version, self.options, self._sampler)
        return await self._run_in_thread(lambda: answer(classifier))

    async def _run_in_thread(self, answer: Callable[[], Answer]) -> Answer:
        self._pending += 1
        asked = time.monotonic()
        metrics.QUEUED.inc()

        def work() -> Answer:
            metrics.QUEUED.dec()
            waited = time.monotonic() - asked
            metrics.stage_seconds("queue").observe(waited)
            if waited > self.options.timeout_s:
                # Nobody waits for this one any more, and others do.
                raise UnavailableError(_TOO_LATE)
            with metrics.RUNNING.track_inprogress(), self._noted():
                return answer()

        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._count_out)
        try:
            # Shielded: a thread cannot be stopped, and what it computes still counts as pending.
            result = await asyncio.wait_for(asyncio.shield(future), self.options.timeout_s)
        except TimeoutError:
            raise UnavailableError(_TOO_LATE) from None
        self._last_success = time.monotonic()
        return result

    async def is_ready(self) -> bool:
        """Tells whether the model can answer: by its latest answers, or else by asking it.

        Where all threads are busy there is nobody to ask; they count as stuck once none of them has begun a request for
        `timeout_s`.
        """
        if time.monotonic() - self._last_success < _FRESH_S:
            return True
        begun = list(self._begun.values())
        if len(begun) >= self._threads:
            return time.monotonic() - max(begun) < self.options.timeout_s
        return await self._answers_probe()

    async def _answers_probe(self) -> bool:
        if self._probe is None or self._probe.done():
            predictor = self.versions.stable.predictor
            gray = np.full((1, predictor.image_size, predictor.image_size, 3), 128, np.uint8)
            self._probe = asyncio.get_running_loop().run_in_executor(self._executor, predictor.predict, gray)
        try:
            await asyncio.wait_for(asyncio.shield(self._probe), _PROBE_S)
        # Whatever keeps the model from answering, it is not ready.
        except Exception:
            return False
        self._last_success = time.monotonic()
        return True

    @contextmanager
    def _noted(self) -> Iterator[None]:
        request = object()
        self._begun[request] = time.monotonic()
        try:
            yield
        finally:
            del self._begun[request]

    def close(self) -> bool:
        """Stops the threads, and drops what still waits.

        Returns:
            Whether they do stop; a thread that is computing cannot be stopped.
        """
        self._executor.shutdown(wait=False, cancel_futures=True)
        return not self._begun and (self._probe is None or self._probe.done())

    def _count_out(self, future: "asyncio.Future[Answer]") -> None:
        self._pending -= 1
        # Retrieved, so that a request that was given up leaves no complaint in the log.
        if not future.cancelled():
            future.exception()
