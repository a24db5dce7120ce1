"""The error that a user of the serving package can mend."""


class ServingError(Exception):
    """A model, an image, a request or a server that cannot be used: one line that says what, where, why and what to do.

    The command line prints the message as it is, without a stack trace; the server answers it with status 400.
    """
