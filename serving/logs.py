"""The server's log: one JSON object a line, without anything that a client sent."""

import functools
import logging
import os
import sys
import time
import traceback

import orjson

# What the server's own loggers add to a line, and nothing else.
_FIELDS = ("method", "route", "status", "ms")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": os.getpid(),
            "message": record.getMessage(),
            **{field: getattr(record, field) for field in _FIELDS if hasattr(record, field)},
        }
        if record.exc_info and record.exc_info[0]:
            # Without the exception's message, which may quote what a client sent.
            line["exception"] = record.exc_info[0].__name__
            line["stack"] = "".join(traceback.format_tb(record.exc_info[2]))
        return orjson.dumps(line, default=str).decode()


@functools.lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def configure_logging() -> None:
    """Sends all loggers to standard error as JSON: the server's own from INFO on, others from WARNING on."""
    # What no line shows need not be found out; see "Optimization" in Python's logging HOWTO.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("serving").setLevel(logging.INFO)
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.WARNING)
