"""The errors that carry a line for the user."""

import re


class UserError(Exception):
    """Bad input or settings: one line that says what is wrong, where, why, and what to do.

    The command line prints the message as it is, without a stack trace, and exits with code 2.
    """


class GateError(Exception):
    """A gate that cannot be computed; the message is its reason, one line. It counts as a gate that refused."""


def messages_of(kind: type[Exception], text: str) -> list[str]:
    """Finds what errors say in a traceback, by the name of their class, because Beam's workers hand on only text.

    Args:
        kind: UserError or GateError.
        text: The traceback as Python prints it.

    Returns:
        Their messages in the order of the text, without what Beam adds.
    """
    return re.findall(rf"\b{kind.__name__}: (.+?)(?: \[while running .*)?$", text, re.MULTILINE)
