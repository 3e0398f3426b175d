"""`python -m tools.manpages`: the manual pages below packaging/share/man, made from commands, registers and examples.

They are checked in: so a wheel or source archive is built without ftpatch and numpy, by hatchling alone, and is the
same everywhere. tests/test_man.py makes them anew and compares.
"""
