"""The release before, found where releases are pushed to."""
