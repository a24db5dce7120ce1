"""The server of pushed .tflite models: one process, or several that are kept alive."""

import gc
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from serving.errors import ServingError
from serving.options import ServerOptions
from serving.worker_states import OneOfSeveral, WorkerStates

API_KEY_VARIABLE: Final = "TRIMLINE_API_KEY"
# Read by prometheus_client when it is imported, which is why this module imports nothing that imports it.
_SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"

# Workers that die sooner than this after their start, one after the other, die of their start.
_EARLY_S = 5.0
_MOST_EARLY_DEATHS = 5
_LONGEST_PAUSE_S = 10
# Beyond the time that a request may take, a worker may get no processor for so long before it counts as stuck.
_STARVED_S = 5.0

logger = logging.getLogger(__name__)


def serve(out: Path, options: ServerOptions) -> None:
    """Serves pushed models over HTTP until the process gets SIGINT or SIGTERM.

    Args:
        out: A run's output folder, its `pushed/tflite` folder, or one bundle. New versions in a folder are followed.
        options: How to serve.

    Raises:
        ServingError: No version can be loaded, the address cannot be listened on, or the key or certificate cannot be
            read.
    """
    _check_certificate(options)
    api_key = read_api_key(options.api_key_file)
    # Before anything is loaded, which takes seconds.
    with _bind(options.host, options.port) as listener:
        if options.workers > 1:
            with tempfile.TemporaryDirectory(prefix="trimline-metrics-") as shared:
                os.environ[_SHARED_METRICS] = shared
                _Workers(out, options, api_key, listener).keep_alive()
        else:
            _import_worker().run_worker(out, options, api_key, listener)


class _Running(NamedTuple):
    """A worker: its number, from 0 on, and when it was started."""

    number: int
    started: float


class _Workers:
    """The server processes, forked from this one, which has all their modules and no thread of its own.

    KServe's own supervisor starts a fresh interpreter for a worker that died, and importing KServe takes seconds.
    """

    def __init__(self, out: Path, options: ServerOptions, api_key: str | None, listener: socket.socket) -> None:
        self._worker = _import_worker()
        # Bound once and for all workers, which listen as soon as they can answer.
        self._listener = listener
        self._states = WorkerStates(options.workers)
        self._arguments = (out, options, api_key, listener)
        self._grace_s = options.grace_s
        self._longest_unable_s = options.timeout_s + _STARVED_S
        self._processes: dict[ForkProcess, _Running] = {}
        self._count = options.workers
        self._complaints, self._complain = multiprocessing.Pipe(duplex=False)
        self._stopping = False
        self._early_deaths = 0
        self._start_after = 0.0

    def keep_alive(self) -> None:
        """Runs the workers until SIGINT or SIGTERM; starts a new one for each that dies."""
        self._worker.configure_logging()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        try:
            # What the workers share stays shared: a collection of theirs would write to all of it.
            gc.collect()
            gc.freeze()
            while not self._stopping:
                while len(self._processes) < self._count and time.monotonic() >= self._start_after:
                    self._start()
                # Without any process it returns at once.
                wait([process.sentinel for process in self._processes], timeout=0.5)
                time.sleep(0.01)
                self._kill_stuck()
                self._bury()
        finally:
            self._end()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self) -> None:
        number = min(set(range(self._count)) - {running.number for running in self._processes.values()})
        place = OneOfSeveral(self._states, number)
        process = multiprocessing.get_context("fork").Process(
            target=_run_worker, args=(self._worker, self._complain, *self._arguments, place)
        )
        process.start()
        self._processes[process] = _Running(number, time.monotonic())

    def _kill_stuck(self) -> None:
        for process, running in self._processes.items():
            unable_s = self._states.unable_for(running.number)
            if unable_s > self._longest_unable_s and process.is_alive():
                logger.error("the model of worker %d has not answered for %.0f s: killing it", process.pid, unable_s)
                # What hangs cannot end by itself.
                process.kill()
                process.join()

    def _bury(self) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        for process, running in list(self._processes.items()):
            if process.is_alive():
                continue
            del self._processes[process]
            self._states.forget(running.number)
            mark_process_dead(process.pid)
            if not self._stopping:
                self._replace(process, time.monotonic() - running.started)

    def _replace(self, process: ForkProcess, lived_s: float) -> None:
        """Decides when a dead worker is replaced: at once, or later and later while they die of their start.

        Raises:
            ServingError: They die of their start, and none is left that serves.
        """
        complaint = self._complaints.recv() if self._complaints.poll() else None
        self._early_deaths = self._early_deaths + 1 if lived_s < _EARLY_S else 0
        serves = any(time.monotonic() - running.started >= _EARLY_S for running in self._processes.values())
        if self._early_deaths and not serves and (complaint or self._early_deaths > _MOST_EARLY_DEATHS):
            raise ServingError(complaint or f"workers die as they start, exit code {process.exitcode}: see the log")
        reason = complaint or f"exit code {process.exitcode}"
        logger.warning("worker %d died: %s: starting another", process.pid, reason)
        self._start_after = time.monotonic() + min(max(0, self._early_deaths - 1), _LONGEST_PAUSE_S)

    def _end(self) -> None:
        # Nobody is to wait for a worker that does not come.
        self._listener.close()
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + self._grace_s + 5
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _run_worker(worker, complain: Connection, *arguments: Any) -> None:  # type: ignore[no-untyped-def]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker.run_worker(*arguments)
    except ServingError as error:
        complain.send(str(error))
        sys.exit(2)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _import_worker():  # type: ignore[no-untyped-def]
    # KServe reads the command line when it is imported.
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        from serving import worker
    finally:
        sys.argv = arguments
    return worker


def _bind(host: str, port: int) -> socket.socket:
    """Returns a bound socket; until it listens, clients are refused."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[0], port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServingError(f"cannot listen on {host} port {port}: {reason}: choose another host or port") from error
    return listener


def _check_certificate(options: ServerOptions) -> None:
    if options.tls_cert is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        reason = error.strerror or error
        raise ServingError(f"{options.tls_cert}, {options.tls_key}: not a certificate and its key: {reason}") from error


def read_api_key(file: Path | None) -> str | None:
    """Returns the key that requests must bring.

    Args:
        file: Has the key; None where the environment may have it.

    Returns:
        The key; None where there is none.

    Raises:
        ServingError: It cannot be read, or is empty.
    """
    place = f"${API_KEY_VARIABLE}" if file is None else file
    try:
        found = os.environ.get(API_KEY_VARIABLE) if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(f"{place}: the API key cannot be read: {getattr(error, 'strerror', error)}") from error
    if found is None:
        return None
    # Files end with a newline, and so do variables that Kubernetes fills from a Secret made from one.
    key = found.strip()
    if not key:
        # Whoever sets it does not want a server that is open to all.
        raise ServingError(f"{place}: is empty: write the API key into it")
    return key
