"""Changes of a compiled pipeline as it is uploaded."""

from __future__ import annotations

import yaml

from trainer_module.errors import UserError


def without_cache(package: str) -> str:
    """Returns a package whose tasks take nothing from the cache.

    The client's own switch works only where no version is uploaded.

    Args:
        package: The YAML documents of a compiled pipeline.

    Raises:
        UserError: It is no compiled pipeline.
    """
    try:
        specification, *others = yaml.safe_load_all(package)
        for task in specification["root"]["dag"]["tasks"].values():
            task["cachingOptions"] = {}
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError("--package: this is no compiled pipeline; write one with trimline kubeflow compile") from None
    return yaml.safe_dump_all([specification, *others], sort_keys=True, width=120)
