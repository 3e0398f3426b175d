"""`python -m ftpatch` is the same program as the `ftpatch` script."""

from ftpatch import signals

signals.catch()  # before anything else is loaded: from here on, Ctrl-C prints no traceback

from ftpatch.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
