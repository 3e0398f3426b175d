"""Changes of a kernel tree, written: every file whole, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from ftpatch.kbuild.hook import FileChange
from ftpatch.write import contents, files, paths
from ftpatch.write.system import Note, as_input_error

MODE = 0o666  # permission bits of a new makefile, less the umask


def write_changes(top: str, made: Sequence[FileChange], note: Note) -> None:
    """Write what changes below `top`. Raises InputError where that cannot be, and then all is as it was."""
    with ExitStack() as stack:
        new_files = []
        for change in made:
            if change.new is not None and change.new != change.old:
                path = paths.report_path(os.path.join(top, change.name))
                new = stack.enter_context(files.whole_file(path, MODE, (), note))
                contents.append(new.fd, change.new)
                new.finish()
                new_files.append(new)
        with files.named(new_files):
            for change in made:
                if change.new is None and change.old is not None:
                    path = os.path.join(top, change.name)
                    with as_input_error(path, "cannot be removed"):
                        os.unlink(path)
