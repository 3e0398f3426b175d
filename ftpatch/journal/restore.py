"""From a journal back to the file that was patched, checked by sha256 at both ends.

    AFTER  ─ unpacked ─>  patched ELF │ what the patch appended      first: is this the file that the patch wrote?
                               │ every `new` found, `old` put back
    BACK   <─ packed ───  ELF         │ the signature it had         last: is this the file that was patched?

Where a journal and a file do not fit, that is a PlanError, and nothing was written.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from ftpatch.container import envelope
from ftpatch.container.pack import Buffer, wrap
from ftpatch.container.wrappings import wrapping_for
from ftpatch.document.journal import Edit, Journal
from ftpatch.elf.identity import build_id
from ftpatch.elf.image import Image
from ftpatch.errors import ApplyError, FtpatchError, InputError, PlanError, UsageError
from ftpatch.journal.packing import packed_again
from ftpatch.journal.read import read_journal
from ftpatch.plan.edits import Edits, Group
from ftpatch.recovered.image import open_image
from ftpatch.trees import SILENT, Watch
from ftpatch.write import contents, files, paths
from ftpatch.write.in_place import own_input
from ftpatch.write.system import Note


@dataclass(frozen=True)
class RestoreRequest:
    """What is to be restored."""

    after: str  # the patched file
    journal: str  # the file with its journal
    # where the result goes, packed as that name says; None: `after` without .patched, packed as it was, as is `after`
    out: str | None = None
    dry_run: bool = False  # everything but writing
    max_size: int | None = None  # bytes that a packed file may unpack to


@dataclass(frozen=True)
class Restored:
    """What was done."""

    image: Image  # the patched file
    journal: Journal
    path: str  # of the result
    sha256: str  # of the result
    elf_sha256: str  # of the ELF file in it
    repacked: bool  # the patched file was compressed in another way than the patch had left it
    same: bool  # the result is the very file that was patched, and not only its content


def default_output(after: str) -> str:
    """AFTER without `.patched`, if that names no file yet; UsageError otherwise."""
    name = after.removesuffix(".patched")
    if name == after or not os.path.basename(name):
        raise UsageError("no name for the output", after, todo="-o OUT names the output, --in-place replaces the file")
    if os.path.lexists(name):
        raise UsageError("the output would replace a file", name, todo="-o OUT names the output")
    return name


def restore(request: RestoreRequest, watch: Watch = SILENT) -> Restored:
    """Write the file that was patched, from the result and its journal: byte for byte, unless its name says otherwise.

    Raises InputError and UnsupportedError for files that cannot be read or packed, PlanError for a journal of another
    file. Whatever is raised, nothing was written.
    """
    out, in_place = request.out or default_output(request.after), request.out == request.after
    paths.output_path("" if in_place else request.after, out, [request.journal])
    journal = read_journal(request.journal)
    image = open_image(request.after, request.max_size)
    _ = image.arch  # what no machine here is for is refused before anything in it is judged
    repacked = _require_written_by(journal, image)
    original = _original(journal, image)
    elf_sha256, plain_sha256 = original.sha256s()
    if plain_sha256 != journal.plain_sha256:
        raise _unsound(journal, "bytes of another file")
    # Content that is right is packed: for the name, or as it was, and then byte for byte.
    wrapping = journal.wrapping if in_place or request.out is None else wrapping_for(out, journal.wrapping)
    packed = _packed(journal, original, wrapping, out)
    same = wrapping == journal.wrapping
    sha256 = journal.sha256 if same else plain_sha256 if packed is None else _sha256(packed)
    done = Restored(image, journal, out, sha256, elf_sha256, repacked, same)
    if not request.dry_run:
        _write(done, original if packed is None else packed, request.max_size, watch.note)
    return done


# -- is this the file that the patch wrote? ---------------------------------------------------------------------


def _require_written_by(journal: Journal, image: Image) -> bool:
    """Refuse a file that the journal's patch did not write; True where it was only packed in another way since."""
    if image.sha256 == journal.output.sha256:
        return False
    elf = image.sha256 if image.is_bare else image.data.sha256()
    if elf == journal.output.elf_sha256:
        if _added(journal, image):
            return True
        raise PlanError("signed or stripped since it was patched", image.path,
                        found=f"a signature of {len(image.trailer)} bytes", expected="what the patch left",
                        todo="restore takes the file as the patch wrote it")  # fmt: skip
    # Restored twice, or the files in the wrong order.
    whole = image.sha256 if image.is_bare else image.data.sha256(image.trailer)
    if journal.sha256 == image.sha256 or journal.plain_sha256 == whole:
        raise PlanError("is what the journal's patch started from", image.path, todo="there is nothing to undo")
    raise _another(journal, image)


def _another(journal: Journal, image: Image) -> PlanError:
    """The error for a file that was not written by the journal's patch, with what speaks for a later patch."""
    what = "not the file that the journal's patch wrote"
    own = build_id(image)
    if own != journal.build_id:
        return PlanError(what, image.path, found=f"build-id {own}", expected=f"build-id {journal.build_id}")
    n = sum(image.data[pos : pos + len(new)].tobytes() == new for pos, _, new, _ in journal.edits)
    return PlanError(
        what, image.path, found=f"sha256 {image.sha256[:16]}…, with {n} of its {len(journal.edits)} edits",
        expected=f"sha256 {journal.output.sha256[:16]}…",
        todo="changed since; if by later patches, undo those first: journals undo in reverse order; "
             "or of an earlier run, if that of the journal was killed: patch again",
    )  # fmt: skip


# -- old bytes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Original:
    """What the patch started from, unpacked: made of the patched file whenever it is asked for."""

    elf: Image  # the patched file, as far as the ELF file went before
    edits: Edits  # every `old` in place of its `new`
    cut: bytes  # the signature behind it

    def sha256s(self) -> tuple[str, str]:
        """sha256 of the ELF file alone, and with its signature."""
        digest = hashlib.sha256()
        for piece in contents.pieces(self.elf, self.edits):
            digest.update(piece)
        alone = digest.hexdigest()
        digest.update(self.cut)
        return alone, digest.hexdigest()

    def write(self, fd: int) -> None:
        """Write all of it into an empty descriptor."""
        contents.write(self.elf, self.edits, fd)
        contents.write_pieces(fd, [(len(self.elf.data), np.frombuffer(self.cut, dtype=np.uint8))])

    def tobytes(self) -> bytes:
        return bytes(contents.assembled(self.elf, self.edits)) + self.cut


def _original(journal: Journal, image: Image) -> _Original:
    """The file that was patched, by the edits of the journal. Raises PlanError where they are not those of the file."""
    if not _added(journal, image):
        raise _unsound(journal, f"other bytes behind {journal.size:#x}")
    elf, by_width = replace(image, data=image.data.part(0, journal.size)), defaultdict[int, list[Edit]](list)
    for edit in journal.edits:
        by_width[len(edit.new)].append(edit)
    groups = [_group(edits, width) for width, edits in by_width.items()]
    other = [part.pos[(elf.data.rows(part.pos, part.old.shape[1]) != part.old).any(axis=1)] for part in groups]
    if wrong := [int(pos.min()) for pos in other if len(pos)]:
        raise _unsound(journal, f"other bytes at {min(wrong):#x}")
    return _Original(elf, Edits(groups), journal.cut)


def _group(edits: list[Edit], width: int) -> Group:
    """Edits of one width, each turned round."""
    old, new = (np.frombuffer(b"".join(side), np.uint8).reshape(-1, width) for side in
                ([edit.new for edit in edits], [edit.old for edit in edits]))  # fmt: skip
    pos = np.array([edit.pos for edit in edits], dtype=np.int64)
    return Group("restored", np.arange(len(edits)), pos, old, new)


def _added(journal: Journal, image: Image) -> bool:
    """Whether what follows the bytes of the old ELF file is what the patch appended, its signature included."""
    added = journal.appended + journal.signature
    n_more = len(image.data) - journal.size
    return n_more + len(image.trailer) == len(added) and n_more >= 0 and (
        image.data[journal.size :].tobytes() + image.trailer == added
    )  # fmt: skip


def _unsound(journal: Journal, found: str) -> PlanError:
    return PlanError("the journal does not give back what was patched", journal.path, found=found,
                     expected="what its sha256 say", todo="the journal was changed since it was written")  # fmt: skip


def _sha256(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()


# -- the result --------------------------------------------------------------------------


def _packed(journal: Journal, original: _Original, wrapping: str, out: str) -> Buffer | None:
    """The file to write, None for the content itself. Raises PlanError where it is to be the very file that was
    patched, and is not."""
    if wrapping == "none":
        if journal.wrapping == "none" and journal.sha256 != journal.plain_sha256:
            raise _unsound(journal, "two sha256 of one file")
        return None
    if wrapping != journal.wrapping:
        return wrap(wrapping, original.tobytes())
    packed = packed_again(journal, original.tobytes(), original.elf, out)
    if _sha256(packed) != journal.sha256:
        raise _unsound(journal, "another file as its original")
    return packed


def _write(done: Restored, content: Buffer | _Original, max_size: int | None, note: Note) -> None:
    """The file, checked before it gets its name."""
    path = os.path.realpath(done.path)
    with ExitStack() as stack:
        in_place = path == os.path.realpath(done.image.path)
        check = stack.enter_context(own_input(done.image, note)) if in_place else lambda: None
        new = stack.enter_context(files.whole_file(path, done.image.mode, (done.image.path,), note))
        if isinstance(content, _Original):
            content.write(new.fd)
        else:
            contents.write_pieces(new.fd, [(0, np.frombuffer(content, dtype=np.uint8))])

        # From here on the result is only read.
        _check(done, new.readable, max_size)
        new.finish()
        check()
        new.publish()


def _check(done: Restored, written: str, max_size: int | None) -> None:
    """Refuse a written file that is not what it was to be, or does not hold what it was to hold."""
    try:
        result = envelope.open_file(written, max_size)
        plain = (result.wrapping == "none" and not result.layers) or result.data.sha256(
            result.trailer
        ) == done.journal.plain_sha256
        if plain and result.raw.sha256() == done.sha256:
            return
        what = "other bytes"
    except FtpatchError as error:
        what = error.what
    # Because of the journal's own copy, of an input that somebody wrote to meanwhile, or of this program.
    if done.same and done.journal.encoder is None:
        raise _unsound(done.journal, f"an original with {what}")
    if done.image.raw.sha256() != done.image.sha256:
        raise InputError("the input changed while it was read", done.image.path, todo="nothing was written; run again")
    raise ApplyError("self-check failed: the result is not what was patched", done.path, found=what,
                     todo="the output was not kept; please report this")  # fmt: skip
