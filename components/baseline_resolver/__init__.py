"""Which model the release gate compares with."""
