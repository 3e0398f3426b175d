"""Fuzzing of everything that reads what others wrote: `make fuzz`, or `python -m tools.fuzz --target check --runs 500`.

seeds, texts   small files of testdata, small real modules where `make kernels` has fetched them, and texts of each kind
mutate         changes that know where an ELF file keeps its fields, rows and strings; `mutate_text` knows languages
parsers        targets: one function per parser, whose result is asked for what must hold
journeys       targets: whole command lines, held against what all of them promise, `verify` and `restore`
targets        the table of targets; the same seed and number give the same input
bounds         5 seconds and 200 MB per input, and no exception but a refusal
server         a fork server: a child that dies or hangs is a finding, and the rest goes on
guided         inputs that coverage chooses, where atheris is installed
minimise       a smaller input that goes wrong in the same way
branches       which branches each target takes, where coverage.py is installed
"""
