"""ReleaseGate: one blessing for everything that ships together."""
