"""Whole trees of modules: which files are in one, and the scans of all of them, side by side.

A tree is what `find DIR -type f -name '*.ko*'` sees: symbolic links are not followed, neither to folders (a module
tree has one to its sources) nor to files, so that nothing outside is read and nothing twice. Only modules count; a
vmlinux or an object in the tree is given by its own name.

Work goes out in chunks of neighbouring files, the heaviest first; results come back in the order of the files,
whoever finishes first. What comes back is small: the objects of the report, a module's sites as packed bytes.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ftpatch import memory
from ftpatch.document.request import Request as Request
from ftpatch.document.rows import image_object
from ftpatch.errors import FtpatchError, InputError, SelectionError
from ftpatch.inputs import Path
from ftpatch.progress import Progress, silent
from ftpatch.signals import leave_to_parent, undone
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from ftpatch.arrays import Mask
    from ftpatch.document.site_rows import SiteRow
    from ftpatch.document.types import ImageObject
    from ftpatch.sites.scan import Scan

SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
CHUNK = 16  # files that a worker takes at once, at most
Result = TypeVar("Result")
ALONE = 64  # files up to which starting workers costs more than they save


@dataclass(frozen=True)
class ModuleScan:
    """What the scan of one file gave: its IMAGE object or its error."""

    path: str
    image: ImageObject | None = None
    error: FtpatchError | None = None
    notes: tuple[str, ...] = ()  # on the selection
    missing: frozenset[str] = frozenset()  # selectors that match nothing here
    n_chosen: int = 0  # sites


@dataclass(frozen=True)
class Watch:
    """Functions that a journey calls while it runs; by default they do nothing."""

    note: Callable[[str], None] = lambda text: None  # remarks: a line each
    # the files of a tree before any of them is read; what this raises ends the journey
    listed: Callable[[Sequence[str]], object] = lambda files: None
    progress: Progress = silent  # of the files of a tree, or the sites that a proof executes


SILENT = Watch()


class Packed(Sequence["SiteRow"]):
    """The sites of one image as bytes, a tenth of the objects' size; unpacked at each use."""

    def __init__(self, sites: Sequence[SiteRow]) -> None:
        self._n, self._bytes = len(sites), pickle.dumps(list(sites), protocol=5)

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[SiteRow]:
        return iter(pickle.loads(self._bytes))

    def __getitem__(self, index: Any) -> Any:
        return pickle.loads(self._bytes)[index]


@dataclass(frozen=True)
class Listing:
    """The modules of a tree."""

    files: tuple[str, ...]  # in the order of their names' bytes
    sizes: tuple[int, ...]  # in bytes on disk: what takes longest is begun first
    errors: tuple[ModuleScan, ...]  # folders that could not be read


def walk(top: str) -> Listing:
    """Every module below `top`. Raises InputError where there is none."""
    files: list[tuple[str, int]] = []
    errors: list[ModuleScan] = []
    folders, n_links = [top], 0
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    named = entry.name.endswith(SUFFIXES)
                    n_links += named and entry.is_symlink()
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif named and entry.is_file(follow_symlinks=False):
                        files.append((entry.path, entry.stat(follow_symlinks=False).st_size))
        except OSError as error:
            errors.append(ModuleScan(folder, error=InputError(f"cannot be read: {error.strerror}", folder)))
    if not files and not errors:
        links = f"{n_links} symbolic links, which are not followed" if n_links else ""
        raise InputError("no module in this tree", top, found=links, expected=", ".join(SUFFIXES),
                         todo="name a vmlinux, an object or a program inside it")  # fmt: skip
    files.sort(key=lambda file: os.fsencode(file[0]))
    return Listing(tuple(path for path, _ in files), tuple(size for _, size in files), tuple(errors))


def scan_tree(
    top: Path, request: Request | None = None, jobs: int | None = None, watch: Watch = SILENT
) -> list[ModuleScan]:
    """Every file's result and every folder's error, in the order of their names; see `over_tree`.

    Raises SelectionError for selectors that are none.
    """
    listing, modules = over_tree(
        os.fspath(top), lambda listing: partial(_scan_files, request or Request()), jobs, watch
    )
    return sorted([*modules, *listing.errors], key=lambda module: os.fsencode(module.path))


def over_tree(
    top: str, work: Callable[[Listing], Callable[[Sequence[str]], list[Result]]], jobs: int | None, watch: Watch
) -> tuple[Listing, list[Result]]:
    """The modules of a tree, and what `work` of these gives for each, chunk by chunk in any order.

    jobs: worker processes; None: one per processor, or none at all for a few files. Raises InputError for an empty
    tree, what `work` raises, and FtpatchError (70) where a worker was killed.
    """
    listing = walk(top)
    watch.listed(listing.files)
    of_files = work(listing)
    n = len(listing.files)
    jobs = min(len(os.sched_getaffinity(0)) if n > ALONE else 1, n) if jobs is None else min(jobs, n)
    if not memory.is_there(4 * memory.THREAD):  # a pool of processes has threads, and each of these one
        jobs = 1
    pool = _pool(jobs, watch) if jobs > 1 else None
    jobs = jobs if pool else 1
    size = max(1, min(CHUNK, n // (4 * max(jobs, 1))))  # at least four chunks per worker, as far as there are files
    starts = list(range(0, n, size))
    if jobs > 1:  # the most bytes first, so that no worker begins the longest chunk when the others are done
        starts.sort(key=lambda at: -sum(listing.sizes[at : at + size]))
    chunks = [listing.files[at : at + size] for at in starts]
    with watch.progress(n) as advance:
        if pool:
            return listing, _side_by_side(chunks, of_files, pool, advance)
        results: list[Result] = []
        for paths in chunks:
            results += of_files(paths)
            advance(len(paths))
    return listing, results


def _pool(jobs: int, watch: Watch) -> ProcessPoolExecutor | None:
    """Worker processes, not started yet; None, with a remark, where the system has no semaphores for them."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    try:  # fork: no thread runs yet, and a worker has everything loaded
        return ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=_start_worker)
    except (OSError, ImportError, NotImplementedError) as error:  # /dev/shm is absent, read-only or full
        why = error.strerror if isinstance(error, OSError) else error
        watch.note(f"one process reads all files: no semaphore for more can be made in /dev/shm ({why})")
        return None


def _side_by_side(
    chunks: list[tuple[str, ...]], work: Callable[[Sequence[str]], list[Result]], pool: ProcessPoolExecutor,
    advance: Callable[[int], object],
) -> list[Result]:  # fmt: skip
    """The chunks' results, from a pool's processes. Whatever ends this early ends the workers too."""
    from concurrent.futures.process import BrokenProcessPool

    with undone(_kill_workers):
        try:
            return _results_of(pool, chunks, work, advance)
        except BrokenProcessPool:
            raise FtpatchError("a worker process died", todo="out of memory? --jobs 1 needs the least") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _results_of(
    pool: ProcessPoolExecutor, chunks: list[tuple[str, ...]], work: Callable[[Sequence[str]], list[Result]],
    advance: Callable[[int], object],
) -> list[Result]:  # fmt: skip
    """What the workers of a pool, which are not started yet, give for each chunk."""
    from concurrent.futures import as_completed

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:  # signals wait until the workers know what to do with them
        futures = {pool.submit(work, paths): len(paths) for paths in chunks}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    results: list[Result] = []
    for future in as_completed(futures):
        results += future.result()
        advance(futures[future])
    return results


def _kill_workers() -> None:
    """End all workers, now: they only read."""
    from multiprocessing import active_children

    for worker in active_children():
        worker.kill()
        worker.join()


def _start_worker() -> None:
    """A worker leaves Ctrl-C to its parent, ends at SIGTERM, and never outlives its parent."""
    from multiprocessing import parent_process

    leave_to_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _scan_files(request: Request, paths: Sequence[str]) -> list[ModuleScan]:
    return [_scan_module(request, path) for path in paths]


def _scan_module(request: Request, path: str) -> ModuleScan:
    """The result of one file. Raises SelectionError for a selector that no file can answer."""
    try:
        scan = scan_file(path, request.layout, request.max_size)
        hashed = scan.image.sha256 if request.hashed else None
        if not request.selects:
            return ModuleScan(path, _image(scan, None, hashed, request))
    except FtpatchError as error:
        return ModuleScan(path, error=error)
    except Exception as error:  # only to say where
        error.add_note(f"while reading {path}")
        raise
    from ftpatch.sites.select import select

    missing: set[str] = set()
    selection = select(scan.sites, request.func, request.status, request.section, missing=missing,
                       unrecorded=request.unrecorded)  # fmt: skip
    image = _image(scan, selection.mask, hashed, request._replace(with_sites=True))
    return ModuleScan(path, image, None, selection.notes, frozenset(missing), int(selection.mask.sum()))


def _image(scan: Scan, chosen: Mask | None, sha256: str | None, request: Request) -> ImageObject:
    """What a report has of one module."""
    image = image_object(scan, chosen, sha256, request.with_sites)
    if request.units:
        from ftpatch.document.units import units_object

        image["units"] = units_object(scan.sites)
    if image["sites"]:
        image["sites"] = Packed(image["sites"])
    return image


def require_chosen(top: str, modules: Sequence[ModuleScan]) -> None:
    """Raise SelectionError where a selector matches nothing in any module, or all of them together nothing."""
    read = [module for module in modules if module.image]
    nowhere = frozenset.intersection(*(module.missing for module in read)) if read else frozenset()
    if nowhere:
        raise SelectionError("nothing of that name in any module", top, found=", ".join(sorted(nowhere)))
    if read and not any(module.n_chosen for module in read):
        raise SelectionError(
            "the selection is empty", top, found="no site matches all of --func, --status and --section"
        )
