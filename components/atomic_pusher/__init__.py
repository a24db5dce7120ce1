"""Pusher whose versions appear whole."""
