"""`record`: records of patch sites in a relocatable file, where a compiler or a linker lost them.

calls.py        where records belong: calls of the profiling function, as a kernel's build records them
entries.py      … the sites at the entries of functions that somebody names
build.py        … those that another build of the same sources recorded
existing.py     the record sections that are there: what of them stays, and what is wrong with them
sections.py     record sections as compilers make them: link, group, relocations
"""
