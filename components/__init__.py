"""Custom TFX components: a thin executor over an engine that knows nothing of TFX."""

from importlib import import_module
from typing import Any

# Kubeflow stores an artifact's type as "package.Class" and imports the class by that name.
_ARTIFACT_TYPES = {
    "CompressionReport": "components.compression.spec",
    "GateReport": "components.release_gate.spec",
    "IngestReport": "components.image_example_gen.spec",
}


def __getattr__(name: str) -> Any:
    """Imports an artifact type when it is asked for: TFX is slow to load, and engines do without it."""
    if name in _ARTIFACT_TYPES:
        return getattr(import_module(_ARTIFACT_TYPES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
