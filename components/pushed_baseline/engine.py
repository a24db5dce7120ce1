"""Finds the release before among pushed versions."""

from __future__ import annotations

import posixpath

from components.atomic_pusher.destination import latest_whole_versions, tree_digest


def latest_other(base: str, candidate: str) -> str:
    """Returns the newest whole version that was pushed and is not the candidate itself.

    A repeated run has the candidate of the run before, which is pushed by then: to compare it with itself would say
    nothing, and would change the inputs of the gates, so that the cache no longer answers.

    Args:
        base: Directory of versions, path or URI.
        candidate: Directory with the candidate's files.

    Returns:
        The version's directory; "" if there is none.
    """
    own = tree_digest(candidate)
    directories = (posixpath.join(base, str(version)) for version in latest_whole_versions(base))
    return next((directory for directory in directories if tree_digest(directory) != own), "")
