"""Reading ELF files: tables as zero-copy numpy views, and the address spaces of one image."""
