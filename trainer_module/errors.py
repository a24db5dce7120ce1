"""The errors that carry a line for the user."""


class UserError(Exception):
    """Bad input or settings: one line that says what is wrong, where, why, and what to do.

    The command line prints the message as it is, without a stack trace, and exits with code 2.
    """


class GateError(Exception):
    """A gate that cannot be computed; the message is its reason, one line. It counts as a gate that refused."""
