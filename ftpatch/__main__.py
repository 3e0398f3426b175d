"""`python -m ftpatch` is the same program as the `ftpatch` script."""

from ftpatch.cli import main

main()
