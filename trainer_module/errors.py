"""The error that a user can mend."""


class UserError(Exception):
    """Bad input or settings: one line that says what is wrong, where, why, and what to do.

    The command line prints the message as it is, without a stack trace, and exits with code 2.
    """
