"""Ingest: from a folder of labelled photos to sharded tf.Example records."""
