"""Pages of the reference that are made from the program: python -m tools.reference."""
