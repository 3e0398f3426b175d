"""Writes C programs of thousands of small functions that pass arguments in every way, the same for the same seed.

    python -m tools.program_source FOLDER [--functions N] [--seed N] [--wide]

They are to be built twice: with sites of a tracer, and with -finstrument-functions, whose calls counter.c counts. Both
builds need `PLAIN`, so that each call of the source is a call of the machine: every function writes to a volatile
variable, in front of its calls and behind them, so that none is left out, merged with another, or made a loop.

The functions call each other by their numbers, always lower ones, and each knows what a call of it costs in calls, so
that a program of 3,000 functions ends after some 200,000.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PLAIN = ("-fno-inline", "-ffp-contract=off")  # options without which two builds may differ in calls or in figures
GCC_PLAIN = ("-fno-ipa-icf", "-fno-partial-inlining")  # the same, for gcc alone
MOST = 60  # calls that one call of a function may come to
UNITS = 3  # files of functions


class Kind(NamedTuple):
    """A kind of function. In the texts {f} is its name, {n} its number, {calls} an int, {x} the argument of a call."""

    declare: str  # its prototype, without the semicolon
    body: str
    call: str  # an expression that calls it and has an int
    share: int = 1  # how often it is chosen
    calls: int = 1  # calls that it makes besides {calls}, itself included


IN, OUT = "touched = {n};", "touched = -{n};"  # what keeps calls where they are
KINDS = (
    Kind("int {f}(int x)", "int r = x * 3 + {n}; {in} r += {calls}; {out} return r ^ {n};", "{f}({x})", 6),
    Kind("static __attribute__((noinline, used)) int {f}(int x)", "{in} int r = x - {calls}; {out} return r;", "", 0),
    Kind("int {f}(int n)", "{in} if (n < 1) return {n}; int r = {f}(n - 1) + {f}(n - 2); {out} return r & 255;",
         "{f}(({x}) & 3)", 1, 9),
    Kind("double {f}(double a, float b, int x)", "{in} double r = a * 0.5 + b * x + {calls}; {out} return r;",
         "(int) {f}({x}, 1.5f, 3)", 2),
    Kind("float {f}(float a, float b, float c, float d, double e, double g, float h, double i, double j)",
         "{in} float r = a + b - c * d + e - g + h + i * j + {calls}; {out} return r;",
         "(int) {f}({x}, 1, 2, 3, 4, 5, 6, 7, 8)", 2),
    Kind("long double {f}(long double a, int x, long double b)",
         "{in} long double r = a / 4 + x - b + {calls}; {out} return r;", "(int) {f}({x}, {n}, 2.5L)", 1),
    Kind("v4 {f}(v4 a, int x, v4 b)", "{in} v4 r = a + b * x; r[1] += {calls}; {out} return r;",
         "{f}((v4){{{x}, 1, 2, 3}}, 3, (v4){{4, 5, 6, 7}})[1]", 2),
    Kind("struct big {f}(int x, struct big b, int y)",
         "{in} b.v[3] += x * y + {calls}; b.v[x & 3] ^= y; {out} return b;",
         "(int) {f}({x}, (struct big){{{{{x}, 1, 2, 3, 4, 5}}}}, {n}).v[3]", 2),
    Kind("struct floats {f}(struct floats a, double b)", "{in} a.b += b + {calls}; a.c = a.a - b; {out} return a;",
         "(int) {f}((struct floats){{{x}, 2, 3, 4}}, 1.25).b", 2),
    Kind("struct pair {f}(struct pair a, long b)", "{in} struct pair r = {{a.b + b, a.a - {calls}}}; {out} return r;",
         "(int) {f}((struct pair){{{x}, 7}}, {n}).b", 1),
    Kind("int {f}(int a, long b, short c, char d, int e, long g, int h, int i, int j, double k, int l, char m)",
         "{in} int r = a + b - c + d * e - g + h * i - j + (int) k + l - m + {calls}; {out} return r;",
         "{f}({x}, 2, 3, 4, 5, 6, 7, 8, 9, 10.5, 11, 12)", 2),
    Kind("int {f}(int n, ...)",
         "va_list v; {in} int r = {calls}; va_start(v, n); for (int i = 0; i < n; i++) r += i & 1 ? (int) (va_arg(v, "
         "double) * 2) : va_arg(v, int); va_end(v); {out} return r;",
         "{f}(7, {x}, 1.5, 3, 2.5, 5, 3.5, 7)", 2),
    Kind("__int128 {f}(__int128 a, long b)", "{in} __int128 r = a * b + {calls}; {out} return r >> 1;",
         "(int) {f}({x}, {n})", 1),
    Kind("double _Complex {f}(double _Complex a, int x)", "{in} double _Complex r = a * x + {calls}; {out} return r;",
         "(int) __real__ {f}({x} + 2.0i, 3)", 1),
    Kind("int {f}(int x)", "touched = {n}; return {tail};", "{f}({x})", 2),
    Kind("int {f}(int x)", "{in} int r = table[(x ^ {n}) & 15](x & 63) + {calls}; {out} return r;", "{f}({x})", 1, 2),
    Kind("int {f}(int x)",
         "jmp_buf b; volatile int turns = 0; int r = setjmp(b); touched = r; if (turns < 2) {{ turns++; "
         "thrower(&b, turns + x); }} r += {calls}; {out} return r & 1023;", "{f}(({x}) & 31)", 1, 3),
)  # fmt: skip
NESTED = Kind(
    "int {f}(int x)",
    "int local = x; int inner(int y) {{ touched = y; local += y * {n}; return local & 127; }} {in} "
    "int r = inner(x & 7); r += twice_by(inner, x & 3); r += {calls}; {out} return r - local % 5;",
    "{f}(({x}) & 1023)", 2, 5,
)  # fmt: skip  # the static chain is a register that only callers of nested functions set
WIDE = Kind("v8 {f}(v8 a, int x, v8 b)", "{in} v8 r = a * b + (float) x; r[5] += {calls}; {out} return r;",
            "(int) {f}((v8){{{x}, 1, 2, 3, 4, 5, 6, 7}}, 3, (v8){{1, 2, 1, 2, 1, 2, 1, 2}})[5]", 2)  # fmt: skip

HEADER = """\
#include <setjmp.h>
#include <stdarg.h>
typedef int v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));
struct big { long v[6]; };
struct floats { double a, b, c, d; };
struct pair { long a, b; };
extern volatile int touched;
extern int (*const table[16])(int);
void thrower(jmp_buf *b, int x) __attribute__((noreturn));
int twice_by(int (*p)(int), int x);
"""
MAIN = """\
#include <pthread.h>
#include <stdio.h>
#include "functions.h"
volatile int touched;
void thrower(jmp_buf *b, int x) { touched = x; longjmp(*b, x & 7 ? x & 7 : 1); }
int twice_by(int (*p)(int), int x) { int r = p(x); r += p(x + 1) * 3; touched = r; return r; }
"""
THREADS = """\
static void *in_thread(void *number)
{
	long sum = 0, n = (long) number;
	for (int i = 0; i < 50; i++)
		sum = sum * 31 + (table[(i + n) & 15](i & 63) & 4095);
	touched = n;
	return (void *) (sum & 0xffffff);
}

int main(void)
{
	pthread_t threads[4];
	void *sum;
	run();
	for (long i = 0; i < 4; i++)
		pthread_create(&threads[i], 0, in_thread, (void *) i);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &sum);
		printf("thread %d: %ld\\n", i, (long) sum);
	}
	return 0;
}
"""
# The hook, and what -finstrument-functions calls: both count. The hook leaves nothing in many registers that a C
# function may change. The report comes behind the destructors of all other units.
COUNTER = """\
#include <stdio.h>
#define OWN __attribute__((no_instrument_function, patchable_function_entry(0)))
#if defined __aarch64__
#define SPOIL "mov x8, #-8; movi v0.16b, #85; movi v1.16b, #85; movi v2.16b, #85; movi v3.16b, #85;" \\
	"movi v7.16b, #85; movi v31.16b, #85; mov x0, #-1; mov x1, #-2; mov x7, #-3; mov x9, #-9; mov x17, #-4;" \\
	"mov x18, #-18; msr nzcv, x17"
#define SPOILED "x0", "x1", "x7", "x8", "x9", "x17", "x18", "v0", "v1", "v2", "v3", "v7", "v31", "cc", "memory"
#elif defined __powerpc64__
#define SPOIL "li 3,-3; li 4,-4; li 10,-10; li 11,-11; li 12,-12; li 0,-1; vspltisw 2,3; vspltisw 3,4;" \\
	"vspltisw 13,5; xxlxor 1,1,1; xxlxor 2,2,2; xxlxor 8,8,8; mtctr 3; mtcrf 0x83,3"
#define SPOILED "r0", "r3", "r4", "r10", "r11", "r12", "vs1", "vs2", "vs8", "v2", "v3", "v13", "ctr", "cr0", \\
	"cr6", "cr7", "memory"
#else
#define SPOIL "mov $-1, %%rax; mov %%rax, %%rcx; mov %%rax, %%rdx; mov %%rax, %%rsi; mov %%rax, %%rdi;" \\
	"mov %%rax, %%r8; mov %%rax, %%r9; mov %%rax, %%r10; mov %%rax, %%r11; pcmpeqd %%xmm0, %%xmm0;" \\
	"movaps %%xmm0, %%xmm1; movaps %%xmm0, %%xmm2; movaps %%xmm0, %%xmm7; movaps %%xmm0, %%xmm15"
#define SPOILED "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm7", \\
	"xmm15", "cc", "memory"
#endif
static unsigned long calls, odd;
OWN void count_entry(unsigned long site, unsigned long caller)
{
	__atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
	if (site == 0 || caller == 0 || site == caller)
		__atomic_fetch_add(&odd, 1, __ATOMIC_RELAXED);
	__asm__ volatile(SPOIL ::: SPOILED);
}
OWN void __cyg_profile_func_enter(void *function, void *caller) { __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED); }
OWN void __cyg_profile_func_exit(void *function, void *caller) { }
OWN __attribute__((destructor(101))) void report_calls(void) { fprintf(stderr, "%lu calls, %lu odd\\n", calls, odd); }
"""


class Function(NamedTuple):
    """A function that was made up."""

    name: str
    kind: Kind
    cost: int  # calls that a call of it comes to, itself included


class Program:
    """The functions of a program, made up one by one."""

    def __init__(self, seed: int, kinds: Sequence[Kind]) -> None:
        self.random, self.kinds = random.Random(seed), [kind for kind in kinds for _ in range(kind.share)]
        self.functions: list[Function] = []
        self.code: list[str] = []

    def add(self, kind: Kind | None = None) -> None:
        """One more function, of a kind or of any."""
        kind = kind or self.random.choice(self.kinds)
        number = len(self.functions)
        name, cost, calls = f"f{number}", kind.calls, ["0"]
        for other in self.random.sample(self.functions, min(len(self.functions), self.random.randrange(4))):
            if cost + other.cost <= MOST:
                cost += other.cost
                calls.append(self.called(other, "x" if " x" in kind.declare else str(self.random.randrange(64))))
        plain = [other for other in self.functions if other.cost < MOST - cost] if "{tail}" in kind.body else []
        if "{tail}" in kind.body:
            target = self.random.choice([other for other in plain if other.kind is KINDS[0]]) if plain else None
            if target is None:
                return self.add(KINDS[0])
            tail, cost = f"{target.name}((x + {number}) & 4095)", kind.calls + target.cost
        else:
            tail = ""
        if "table[" in kind.body:
            cost += MOST // 4
        body = self._filled(kind.body, name, number, " + ".join(calls), tail)
        self.functions.append(Function(name, kind, cost))
        self.code.append(f"{kind.declare.format(f=name)}\n{{\n\t{body}\n}}\n")
        return None

    def _filled(self, body: str, name: str, number: int, calls: str, tail: str) -> str:
        text = body.replace("{in}", IN).replace("{out}", OUT)
        return text.format(f=name, n=number % 97 + 1, calls=f"({calls})", tail=tail)

    def called(self, other: Function, x: str) -> str:
        """An expression that calls a function and has a small int."""
        number = int(other.name[1:]) % 97 + 1
        return f"({other.kind.call.format(f=other.name, x=f'({x} & 1023)', n=number)} & 4095)"


def c_program(seed: int, n: int, wide: bool = False, nested: bool = True) -> dict[str, str]:
    """The files of a C program with n functions, by name. wide: with vectors of 32 bytes; nested: with functions inside
    of others, which gcc alone has."""
    kinds = [*KINDS, *([NESTED] if nested else []), *([WIDE] if wide else [])]
    program = Program(seed, [kind for kind in kinds if kind.call])
    for _ in range(16):
        program.add(KINDS[0])
    while len(program.functions) < n:
        program.add()
    table = ", ".join(f"f{number}" for number in range(16))
    prototypes = "".join(f"{other.kind.declare.format(f=other.name)};\n" for other in program.functions)
    files = {"functions.h": HEADER + prototypes, "counter.c": COUNTER}
    for unit in range(UNITS):
        files[f"unit{unit}.c"] = '#include "functions.h"\n' + "\n".join(program.code[unit::UNITS])
    lines = ["static void run(void)\n{\n\tunsigned sum = 1;\n"]
    for number, other in enumerate(program.functions):
        lines.append(f"\tsum = sum * 33 + {program.called(other, str(number))};\n")
        if number % 100 == 99:
            lines.append(f'\tprintf("{number}: %u\\n", sum);\n')
    lines.append('\tprintf("%u\\n", sum);\n}\n\n')
    files["main.c"] = MAIN + f"int (*const table[16])(int) = {{{table}}};\n" + "".join(lines) + THREADS
    return files


def write(files: dict[str, str], folder: Path) -> None:
    """The files of a program in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def main() -> None:
    """Write a program into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--functions", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wide", action="store_true")
    options = parser.parse_args()
    write(c_program(options.seed, options.functions, options.wide), options.folder)


if __name__ == "__main__":
    main()
