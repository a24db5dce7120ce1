"""Custom TFX components: a thin executor over an engine that knows nothing of TFX."""
