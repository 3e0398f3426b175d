"""What lies around an ELF file or a flat kernel: compression, the layers of boot loaders, the module signature."""
