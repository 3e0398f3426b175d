"""Runs the sites of a patched file in an emulator: what they do is seen, and not derived from what was planned."""
