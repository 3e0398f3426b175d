"""A kernel's own build: what its tree looks like, and the makefile by which the build checks what it links.

The makefile is `Makefile.ftpatch` beside this file, the same for every tree and machine. What differs is who calls it:
Kbuild's Makefile.postlink of the machine, its Makefile.modfinal, or, with MAKEFILES=, every make of the build.
"""
