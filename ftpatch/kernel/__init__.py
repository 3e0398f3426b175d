"""What a kernel does with a file: what it says at boot, what its module loader accepts, what it calls an address."""
