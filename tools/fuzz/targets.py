"""The table of targets: what each runs, what its inputs start from, how they change, and what it is to explore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tools.fuzz import images, journeys, mutate, parsers, seeds, texts
from tools.fuzz.files import Seen


@dataclass(frozen=True)
class Target:
    """A function and its inputs."""

    run: Callable[[bytes, Seen], None]
    seeds: Callable[[bool], tuple[bytes, ...]]  # what mutation starts from; with or without real modules
    mutate: Callable[[bytes, Random], bytes]
    explores: tuple[str, ...]  # files and folders of the package
    share: int  # of the executions of a whole run, in thousandths

    def case(self, seed: int, number: int, real: bool = False) -> bytes:
        """Input `number` of a run: the same for the same seed, whatever ran before it."""
        rng = Random(f"{seed} {number}")
        data = rng.choice(self.seeds(real))
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
            data = self.mutate(data, rng)
        return data


def _linkable(real: bool = True) -> tuple[bytes, ...]:
    return seeds.kernels_of()


def _loadable(real: bool = True) -> tuple[bytes, ...]:
    return (*seeds.modules_of(real), *seeds.modules_of(real), *seeds.offering())


def _undoable(real: bool = True) -> tuple[bytes, ...]:
    return (*seeds.patched_of(), *seeds.kernels_of(), *seeds.modules_of(real))


def _target(
    run: Callable[[bytes, Seen], None], start: Callable[[bool], tuple[bytes, ...]],
    change: Callable[[bytes, Random], bytes], share: int, *explores: str,
) -> Target:  # fmt: skip
    return Target(run, start, change, explores, share)


ELF, SMALL = mutate.elf, seeds.all_elf
TARGETS = {
    # parsers
    "envelope": _target(parsers.fuzz_envelope, seeds.packed_of, mutate.packed, 40, "container/"),
    "headers": _target(parsers.fuzz_headers, SMALL, ELF, 80, "elf/headers.py", "elf/image.py", "elf/image_tables.py"),
    "relr": _target(parsers.fuzz_relr, seeds.tables_of, mutate.plain, 40, "elf/tables.py"),
    "relocations": _target(parsers.fuzz_relocations, SMALL, ELF, 80, "elf/relocations.py"),
    "symbols": _target(parsers.fuzz_symbols, SMALL, ELF, 80, "elf/functions.py", "elf/identity.py",
                       "kernel/kallsyms.py"),
    "records": _target(parsers.fuzz_records, SMALL, ELF, 90, "sites/records.py"),
    "debug": _target(parsers.fuzz_debug, seeds.debug_of, mutate.inside(".debug_"), 60, "elf/debug_"),
    "types": _target(parsers.fuzz_types, seeds.typed_of, mutate.inside(".BTF"), 20, "elf/btf"),
    "notes": _target(parsers.fuzz_notes, seeds.noted_of, mutate.notes, 20, "elf/identity.py"),
    "strings": _target(parsers.fuzz_strings, seeds.strings_of, mutate.plain, 40, "kernel/modinfo.py"),
    "metadata": _target(parsers.fuzz_metadata, _loadable, ELF, 40, "kernel/exports.py", "kernel/loader.py",
                        "kernel/module_load.py", "kernel/module.py"),
    "signature": _target(parsers.fuzz_signature, seeds.trailers_of, mutate.plain, 40, "container/signature.py"),
    "journal": _target(parsers.fuzz_journal, seeds.journals_of, mutate.document, 30, "document/json_input.py",
                       "journal/"),
    # kernels without symbols
    "layers": _target(images.fuzz_layers, images.layers_of, mutate.plain, 12, "container/"),
    "kallsyms": _target(images.fuzz_kallsyms, images.kernels_of, mutate.plain, 12, "recovered/kallsyms"),
    "flat": _target(images.fuzz_flat, images.kernels_of, mutate.plain, 12, "recovered/", "container/peel.py"),
    # texts
    "settings": _target(texts.fuzz_settings, texts.settings_of, texts.TOML, 30, "rules/gate.py", "rules/files.py"),
    "baseline": _target(texts.fuzz_baseline, texts.baselines_of, texts.json_baseline, 30, "rules/gate.py",
                        "document/json_input.py"),
    "kconfig": _target(texts.fuzz_kconfig, texts.kconfigs_of, texts.KCONFIG, 20, "rules/gate.py"),
    "selectors": _target(texts.fuzz_selectors, texts.selectors_of, texts.SELECTOR, 50, "sites/select.py"),
    "splat": _target(texts.fuzz_splat, texts.splats_of, texts.LOG, 40, "explanation/splat.py",
                     "explanation/diagnosis.py"),
    "stub": _target(texts.fuzz_stub, texts.stubs_of, texts.ASSEMBLY, 40, "plan/stubasm/"),
    # whole command lines
    "scan": _target(journeys.fuzz_scan, SMALL, ELF, 30, "sites/", "document/", "report/",
                    "elf/symbol_letters.py", "recovered/symbol_list.py"),
    "check": _target(journeys.fuzz_check, SMALL, ELF, 25, "rules/", "kernel/boot.py", "report/formats/"),
    "explain": _target(journeys.fuzz_explain, SMALL, ELF, 20, "explanation/"),
    "diff": _target(journeys.fuzz_diff, _linkable, ELF, 15, "compare/"),
    "image": _target(journeys.fuzz_image, _linkable, ELF, 10, "write/bootimage.py"),
    "verify": _target(journeys.fuzz_verify, seeds.patched_of, ELF, 15, "proof/"),
    "module": _target(journeys.fuzz_enable, seeds.modules_of, ELF, 12, "plan/module/", "elf/editor.py"),
    "vmlinux": _target(journeys.fuzz_enable, _linkable, ELF, 13, "plan/", "write/"),
    "redirect": _target(journeys.fuzz_redirect, _undoable, ELF, 10, "plan/redirect/", "kernel/callee.py"),
    "link": _target(journeys.fuzz_link, seeds.patches_of, ELF, 12, "plan/link/", "kernel/module_sections.py"),
    "static": _target(journeys.fuzz_static_calls, seeds.static_calls_of, ELF, 15, "sites/static_calls.py",
                      "plan/static_calls/", "proof/static_calls.py"),
    "record": _target(journeys.fuzz_record, seeds.recorded_of, ELF, 10, "plan/record/", "proof/recorded"),
    "undo": _target(journeys.fuzz_undo, _undoable, ELF, 10, "plan/disable.py", "plan/drop.py", "plan/records_back.py"),
}  # fmt: skip
