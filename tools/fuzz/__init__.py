"""Fuzzing of everything that reads a file: `make fuzz`, or `python -m tools.fuzz --target records --seconds 60`.

seeds      small files of testdata, and small real modules where `make kernels` has fetched them
mutate     changes to them that know where an ELF file keeps its fields, rows and strings
targets    one function per parser, and whole journeys: whatever bytes come in, only an FtpatchError comes out
bounds     5 seconds and 200 MB per input, and how many inputs got past the headers
engine     mutation after mutation: guided by coverage where atheris is installed, blind where it is not
branches   which branches of the parsers the inputs took that were worth keeping
"""
