"""What `enable` adds to a module: what its sites call, with the symbols, relocations and sections for it."""
