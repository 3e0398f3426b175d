"""Writes C++ programs of a thousand functions and more: virtual ones, templates that units share, exceptions, and more.

    python -m tools.program_source_cc FOLDER [--families N] [--seed N]

They are built and counted as those of `program_source`. Each family of functions has a hierarchy of classes with two
bases (so that the compiler makes thunks), objects that are constructed before main and destroyed behind it, templates
that every unit instantiates (COMDAT), a function that throws through frames with destructors, a lambda, a pointer to a
member, and virtual inheritance. Nothing of the C++ library is used but exceptions, new and delete: its headers have
functions that are inlined in any case, which -finstrument-functions counts and no site does.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from tools.program_source import COUNTER, write

UNITS = 3
HEADER = """\
#include <stddef.h>
extern volatile int touched;
struct Error { int code; Error(int c) : code(c) { touched = c; } };
template <class T> struct Pair { T a, b; Pair(T x, T y) : a(x), b(y) { touched = 1; } T sum() const; };
template <class T> T Pair<T>::sum() const { touched = 2; return a + b; }
template <int N, class T> T scaled(T x) { touched = N; return x * N + 1; }
template <class F> int applied(F f, int x) { touched = 3; int r = f(x); touched = 4; return r; }
template <class T, int N> struct Row {
	T v[N];
	T &operator[](int i) { touched = N; return v[i % N]; }
	T total() { T r = 0; for (int i = 0; i < N; i++) r += (*this)[i]; touched = -N; return r; }
};
struct Counted {
	static int alive;
	int id;
	Counted(int i) : id(i) { alive++; touched = i; }
	Counted(const Counted &o) : id(o.id + 1) { alive++; touched = id; }
	~Counted() { alive--; touched = -id; }
};
inline double halved(double x) { touched = 5; return x / 2; }
"""
FAMILY = """\
struct Left@ { int l; Left@(int x) : l(x) { touched = x; } virtual ~Left@() { touched = @; } virtual int left(int x); };
struct Right@ { long r[3]; Right@() { touched = @; r[1] = @; } virtual ~Right@() { touched = -@; }
	virtual int right(int x) { touched = x; return x + (int) r[1]; } };
struct Both@ : Left@, Right@ {
	Both@(int x) : Left@(x) { touched = -x; }
	~Both@() { touched = @ + 1; }
	int left(int x) override { touched = x; return Left@::left(x) ^ right(x); }
	int right(int x) override { touched = -x; return x * $A + l; }
};
struct Base@ { int n; Base@() : n(@) { touched = @; } virtual int share(int x) { touched = x; return n + x; } };
struct Side@ : virtual Base@ { int share(int x) override { touched = -x; return Base@::share(x) * 2; } };
struct Deep@ : Side@, virtual Base@ { int plain(int x) const { touched = x; return n - x; } };
int Left@::left(int x) { touched = -@; return l * x + $B; }
static Counted object@(@);
__attribute__((noinline)) static int thrower@(int x)
{
	Counted guard(x);
	touched = x;
	if (x % 3 == 0)
		throw Error(x + $A);
	if (x % 3 == 1)
		throw Pair<int>(x, $B);
	return x + Counted::alive;
}
__attribute__((noinline)) static int passes@(int x, Counted c)
{
	Counted other(c);
	int r = thrower@(x);
	touched = r;
	return r + other.id;
}
double mixed@(double a, int x, float b, Row<int, 5> row, const Pair<long> &p)
{
	row[x] = x;
	double r = halved(a) * b + row.total() + p.sum() + scaled<$C>(x);
	touched = @;
	return r;
}
int family@(int x)
{
	int r = 0;
	for (int i = 0; i < 3; i++) {
		try {
			r += passes@(x + i, Counted(i));
		} catch (const Error &e) {
			r += e.code;
		} catch (Pair<int> &p) {
			r += p.sum();
		}
	}
	Left@ *both = new Both@(x & 7);
	Right@ *second = static_cast<Both@ *>(both);
	r += both->left(x & 15) + second->right(x & 3);
	delete both;
	Deep@ deep;
	Base@ *base = &deep;
	int (Deep@::*member)(int) const = &Deep@::plain;
	r += base->share(x & 31) + (deep.*member)(x & 7);
	r += applied([&](int y) { touched = y; return y * $A + x; }, $B);
	Row<int, 5> row = {{1, 2, 3, 4, 5}};
	r += (int) mixed@(x, x & 3, 1.5f, row, Pair<long>(x, $A)) + scaled<$A>((long) x);
	touched = r;
	return r & 0xffff;
}
"""
PER_FAMILY = 25  # functions, or so, of which some are in every unit and some in the unit alone


def cc_program(seed: int, n_families: int) -> dict[str, str]:
    """The files of a C++ program, by name; counter.c is to be compiled as C."""
    numbers = random.Random(seed)
    units = [['#include "shared.h"\n'] for _ in range(UNITS)]
    for family in range(n_families):
        text = FAMILY.replace("@", str(family + 1))
        for mark in ("$A", "$B", "$C"):
            text = text.replace(mark, str(numbers.randrange(2, 40)))
        units[family % UNITS].append(text)
    files = {f"unit{number}.cc": "\n".join(parts) for number, parts in enumerate(units)}
    main = ['#include <stdio.h>\n#include "shared.h"\nvolatile int touched;\nint Counted::alive;\n']
    main += [f"int family{family + 1}(int);\n" for family in range(n_families)]
    main.append("int main()\n{\n\tunsigned sum = Counted::alive;\n")
    for family in range(n_families):
        main.append(f"\tfor (int i = 0; i < 5; i++)\n\t\tsum = sum * 31 + family{family + 1}(i * 7);\n")
        main.append(f'\tprintf("{family}: %u\\n", sum);\n')
    main.append('\tprintf("%d\\n", Counted::alive);\n}\n')
    return {**files, "main.cc": "".join(main), "shared.h": HEADER, "counter.c": COUNTER}


def main() -> None:
    """Write a program into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--families", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write(cc_program(options.seed, options.families), options.folder)


if __name__ == "__main__":
    main()
