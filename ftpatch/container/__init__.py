"""What lies around an ELF file: compression, the appended module signature."""
