"""Completion: what may follow on a command line, for bash, zsh and fish.

    the shell's line ──► Line ──► Place ──► Answer ──► text for the shell's script
                         words    which      values
                                  value

A press of TAB starts this program anew, so nothing here loads a verb: what verbs take stands in `commands.tsv`. Names
of functions come from the file that the line names, and are kept in the user's cache: the first TAB on a kernel reads
the kernel, the next ones only its names. Where anything fails there are no candidates, and nothing is said.
"""
