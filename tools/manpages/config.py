"""ftpatch.toml(5): the settings of `ftpatch check`. tests/test_man.py holds its keys to the reader in rules/gate.py."""

from __future__ import annotations

from tools.manpages import roff

TEXT = """
A gate over kernels and modules is kept with the sources that it guards: `ftpatch check --config ftpatch.toml` reads
this file. It is TOML. All of it is optional, and what is not known in it is an error, so that no misspelt key goes
unseen.

Options of the command line go before it: --fail-on, --select and --ignore. `ftpatch check --list-rules` lists rules.
"""
KEYS = (
    ("must-be-traceable", "A list of functions of a vmlinux. Each needs a live record; one without is a finding."),
    ("check.fail-on", "error, warning or note: the least severity that makes the exit code 1."),
    ("check.select", "A list of rules. Only these are asked."),
    ("check.ignore", "A list of rules that are not asked."),
    ("rules.RULE.severity", "error, warning or note: how severe findings of a rule are here."),
    ("ignore.rule", "Of each [[ignore]]: the rule whose findings are left out."),
    ("ignore.function", "The functions of which they are, by a glob."),
    ("ignore.object", "The files of which they are, by a glob. One of function and object has to be there."),
    ("ignore.reason", "Why they are no defects here, which has to be said."),
)
EXAMPLE = """\
must-be-traceable = ["vfs_read", "do_sys_openat2"]

[check]
fail-on = "warning"
ignore = ["dead-weak"]

[rules.duplicate]
severity = "note"

[[ignore]]
rule = "out-of-reach"
object = "vmlinux"
function = "arch_*"
reason = "these run before any tracer, see the notes of the port"
"""


def config_page(head: str) -> str:
    """The page."""
    name = rf"{roff.section('NAME')}ftpatch.toml \- settings of ftpatch check" + "\n"
    keys = [roff.entry(roff.bold(key), meaning) for key, meaning in KEYS]
    return "".join([
        head, name, roff.section("DESCRIPTION"), roff.paragraphs(TEXT), roff.section("KEYS"), *keys,
        roff.section("EXAMPLES"), roff.paragraphs("Some of everything:"), roff.commands(EXAMPLE.splitlines()),
        roff.section("SEE ALSO"), f"{roff.bold('ftpatch')}(1),\n{roff.bold('ftpatch-check')}(1)\n",
    ])  # fmt: skip
