#!/bin/sh
# Rebuild every file here with debug information, byte for byte.
#
# Made with (Debian 12 "bookworm", amd64 host): aarch64-linux-gnu-gcc and powerpc64le-linux-gnu-gcc 12.2.0-14,
# GNU binutils 2.40, clang and lld 16.0.6 (packages gcc-aarch64-linux-gnu, gcc-powerpc64le-linux-gnu, clang-16, lld-16).
#
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
FLAGS="-O2 -ffreestanding -fno-pic -fno-pie -fno-asynchronous-unwind-tables -fno-ident -Iinclude"

# units PREFIX COMPILER…: both objects, compiled at the top of a tree called /src/linux
units() {
	name=$1; shift
	"$@" $FLAGS -ffile-prefix-map="$here"=/src/linux -c one.c -o "$obj/$name-one.o"
	"$@" $FLAGS -ffile-prefix-map="$here"=/src/linux -c sub/two.c -o "$obj/$name-two.o"
}
link_() { "$1" -e one -Ttext=0x400000 --build-id=none -o "$out/$2" "$obj/$2-one.o" "$obj/$2-two.o"; }

cd "$here"
for version in 3 4 5; do
	units gcc$version aarch64-linux-gnu-gcc -gdwarf-$version
	link_ aarch64-linux-gnu-ld gcc$version
done
for version in 4 5; do
	units clang$version clang-16 --target=aarch64-linux-gnu -fno-addrsig -gdwarf-$version
	link_ ld.lld-16 clang$version
done
aarch64-linux-gnu-objcopy --compress-debug-sections=zlib "$out/gcc5" "$out/gcc5-zlib"
aarch64-linux-gnu-objcopy --compress-debug-sections=zstd "$out/gcc5" "$out/gcc5-zstd"
cp "$obj/gcc4-one.o" "$out/gcc4.o"
cp "$obj/gcc5-one.o" "$out/gcc5.o"
cp "$obj/clang5-one.o" "$out/clang5.o"
units ppc64le powerpc64le-linux-gnu-gcc -gdwarf-5
cp "$obj/ppc64le-one.o" "$out/ppc64le.o"

# Prototypes: of C for both machines, and of what has none.
objects="$FLAGS -w -ffile-prefix-map=$here=/src/linux -c"
aarch64-linux-gnu-gcc -gdwarf-5 $objects types.c -o "$out/types.o"
powerpc64le-linux-gnu-gcc -gdwarf-4 $objects types.c -o "$out/types-ppc64le.o"
aarch64-linux-gnu-gcc -gdwarf-5 $objects asm.S -o "$out/asm.o"

# Compiled in a build directory, with absolute names, as O= does.
mkdir -p "$obj/tree/build" && cp -r one.c sub include "$obj/tree"
(cd "$obj/tree/build" && aarch64-linux-gnu-gcc -gdwarf-5 $FLAGS -I"$obj/tree/include" \
	-ffile-prefix-map="$obj/tree"=/src/linux -c "$obj/tree/one.c" -o "$out/beside.o")

# Without .debug_aranges, so that the ranges of the units are what tells.
aarch64-linux-gnu-objcopy -R .debug_aranges "$out/gcc5" "$out/gcc5-noaranges"
aarch64-linux-gnu-objcopy -R .debug_aranges "$out/gcc4" "$out/gcc4-noaranges"
