"""Where the launcher of Kubeflow Pipelines lays out an object store's files in a pod.

Source: LocalPathForURI in backend/src/v2/component/launcher_v2.go of github.com/kubeflow/pipelines.
"""

from __future__ import annotations

_MOUNTS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}


def local_path(uri: str) -> str:
    """Returns the path of a URI's files; what is no URI of an object store stays as it is."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    return uri


def uri(path: str) -> str:
    """Returns the URI that a path stands for: the reverse of `local_path`."""
    for scheme, mount in _MOUNTS.items():
        if path.startswith(mount):
            return scheme + path.removeprefix(mount)
    return path
