"""`python -m tools.manpages`: the manual pages in man/, made from the commands, the registers and examples that run.

They are checked in: so a wheel or source archive is built without ftpatch and numpy, by hatchling alone, and is the
same everywhere. tests/test_man.py makes them anew and compares.
"""
