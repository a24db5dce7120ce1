"""The fingerprint of the photos, as a step of its own."""
