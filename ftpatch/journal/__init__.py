"""The journal of a writing verb: made, read back with limits, and used to restore a file."""
