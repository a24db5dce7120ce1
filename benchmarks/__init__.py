"""Measurements of the whole product; results stand in docs/."""
