"""Entry point for Beam workers, which are given this file with --setup_file; metadata lives in pyproject.toml."""

from setuptools import setup

setup()
