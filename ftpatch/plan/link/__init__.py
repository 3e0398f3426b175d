"""How an object file is linked into a module that is linked already: its sections, symbols and relocations."""
