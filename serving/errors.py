"""The errors that a user of the serving package, or a client of its server, can mend."""

from typing import ClassVar


class ServingError(Exception):
    """A model, an image, a request or a server that cannot be used: one line that says what, where, why and what to do.

    The command line prints the message as it is, without a stack trace; the server answers it with `status`. Messages
    never quote what a client sent.

    Attributes:
        status: The HTTP status of the answer.
    """

    status: ClassVar[int] = 400


class NotFoundError(ServingError):
    """The model, version or label is not served here."""

    status = 404


class TooLargeError(ServingError):
    """The body is larger than the server takes."""

    status = 413


class OverloadedError(ServingError):
    """As many requests are waiting as may wait; a later one has better chances."""

    status = 429


class UnavailableError(ServingError):
    """The model does not answer."""

    status = 503
