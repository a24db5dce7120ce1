"""Custom properties of a pushed model; this module imports nothing, so that readers start fast."""

# TFX's names (tfx.components.pusher.executor).
PUSHED = "pushed"
DESTINATION = "pushed_destination"
VERSION = "pushed_version"

PUSHED_BY = "pushed_by"
SHA256 = "pushed_sha256"
