"""What the shell offers after Tab."""

from __future__ import annotations

from pipeline.settings_tree import groups


def setting_keys(incomplete: str) -> list[tuple[str, str]]:
    """Offers the keys of settings for `--set`.

    Args:
        incomplete: What is typed already.

    Returns:
        "KEY=" and its description, for each that begins so.
    """
    settings = (setting for group in groups() for setting in group.settings)
    offered = ((f"{setting.key}=", setting.field.description or "") for setting in settings)
    return [(key, text) for key, text in offered if key.startswith(incomplete)]
