"""The error that costs one variant its candidacy, not the whole run."""


class VariantError(Exception):
    """A variant could not be made or did not pass a check; the message is the reason that goes into the report."""
