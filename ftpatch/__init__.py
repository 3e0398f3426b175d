"""ftpatch: rewrite ftrace patch sites in Linux kernels, on disk, so that the result boots."""

__version__ = "0.1.0"
