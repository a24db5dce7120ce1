"""How a command may end before it is done."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The user stopped a command; the message says what is kept of it."""


class RunError(Exception):
    """A run that failed for no fault of the user; the log has the details."""
