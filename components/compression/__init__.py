"""Compression: small variants of a trained classifier, each measured on its bytes, and the choice of one."""
