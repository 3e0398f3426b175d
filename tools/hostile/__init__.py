"""A hostile campaign over the command line: `make hostile`, or `python -m tools.hostile --runs 2000 --seed 7`.

commands   every verb with every option that takes a file, a name, a pattern or a number, as sound command lines
values     what a hostile user puts there, by what is expected there
place      the folder in which a command line runs, with the sound files and the hostile ones
run        one command line in a forked child, under limits, and what was wrong with it
"""
