#!/bin/sh
# Rebuild every ELF file here. Made with Debian 12's gcc 12.2.0 (native, aarch64-linux-gnu, powerpc64le-linux-gnu), GNU
# binutils 2.40 and clang 14.0.6.
#
# Usage: build.sh [OUTDIR]     (default: this directory)
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
obj=$(mktemp -d)
trap 'rm -rf "$obj"' EXIT
cd "$here"
ARM="aarch64-linux-gnu-gcc -ffile-prefix-map=$here=/src -fno-ident"
FREE="-O2 -ffreestanding -fno-pic -fno-pie -fno-asynchronous-unwind-tables"

# the program, for each machine; without debug information, so that only its code tells
program() { # COMPILER MACHINE NOPS TARGETS
	$1 -O2 -fPIE -DNOPS=$3 -c program.c -o "$obj/program.o"
	$1 -c "targets-$4.S" -o "$obj/targets.o"
	(cd "$obj" && $1 -pie -Wl,--build-id=none -Wl,-z,max-page-size=0x1000 program.o targets.o -o "$out/program-$2")
}
program "$ARM" arm64 2 aarch64
program "gcc -fno-ident" x86_64 5 x86_64

# objects whose callers count on registers, and the same without that
$ARM $FREE -c relies.c -o "$out/relies-arm64.o"
$ARM $FREE -fno-ipa-ra -c relies.c -o "$out/relies-not-arm64.o"
$ARM $FREE -g -fpatchable-function-entry=2 -c relies.c -o "$out/relies-option-arm64.o"
$ARM $FREE -g -c relies.c -o "$out/relies-debug-arm64.o"
powerpc64le-linux-gnu-as passes-ppc64le.s -o "$out/passes-ppc64le.o"
powerpc64le-linux-gnu-as relies-ppc64le.s -o "$out/relies-ppc64le.o"

# programs of several units
for version in 4 5; do
	D="-gdwarf-$version"
	$ARM $FREE $D -fpatchable-function-entry=4,2 -c with.c -o "$obj/with.o"
	$ARM $FREE $D -c without.c -o "$obj/without.o"
	$ARM $FREE $D -Os -fpatchable-function-entry=4,2 -c small.c -o "$obj/small.o"
	$ARM $D -c hand.S -o "$obj/hand.o"
	aarch64-linux-gnu-ld -z max-page-size=0x1000 -e with_one -Ttext=0x400000 --build-id=none -o "$out/units$version-arm64" \
		"$obj/with.o" "$obj/without.o" "$obj/small.o" "$obj/hand.o"
done
aarch64-linux-gnu-ld -r "$obj/with.o" "$obj/without.o" "$obj/small.o" -o "$out/callops-arm64.o"
$ARM $FREE -g -fpatchable-function-entry=2 -c with.c -o "$obj/with.o"
$ARM $FREE -g -fpatchable-function-entry=2 -c without.c -o "$obj/without.o"
$ARM $FREE -g -fpatchable-function-entry=4,2 -c small.c -o "$obj/small.o"
aarch64-linux-gnu-ld -z max-page-size=0x1000 -e with_one -Ttext=0x400000 --build-id=none -o "$out/layouts-arm64" \
	"$obj/with.o" "$obj/without.o" "$obj/small.o"

# forms of debug information
$ARM $FREE -gdwarf-5 -gz -fpatchable-function-entry=2 -c with.c -o "$out/packed-arm64.o"
for version in 4 5; do
	(cd "$obj" && cp "$here/with.c" . && $ARM $FREE -ffile-prefix-map=$obj=/src -gdwarf-$version -gsplit-dwarf \
		-fpatchable-function-entry=2 -c with.c -o with.o && cp with.o "$out/split$version-arm64.o")
done
$ARM $FREE -gdwarf-5 -fdebug-types-section -fpatchable-function-entry=2 -c relies.c -o "$out/types-arm64.o"
$ARM $FREE -g -gno-record-gcc-switches -fpatchable-function-entry=2 -c with.c -o "$out/unrecorded-arm64.o"
$ARM $FREE -g -flto -fpatchable-function-entry=2 -c with.c -o "$obj/with.o"
$ARM $FREE -g -flto -fpatchable-function-entry=2 -c without.c -o "$obj/without.o"
$ARM $FREE -g -flto -nostdlib -static -Wl,-e,with_one -Wl,--build-id=none \
	"$obj/with.o" "$obj/without.o" -Wl,-u,without_one -Wl,-z,max-page-size=0x1000 -o "$out/lto-arm64"
CLANG="clang --target=aarch64-linux-gnu -O2 -ffreestanding -fno-pic -gdwarf-5 -fdebug-compilation-dir=/src"
cp with.c "$obj"
(cd "$obj" && $CLANG -grecord-command-line -fpatchable-function-entry=2 -c with.c -o with.o)
cp "$obj/with.o" "$out/clang-told-arm64.o"
(cd "$obj" && $CLANG -fpatchable-function-entry=2 -c with.c -o with.o && cp with.o "$out/clang-arm64.o")
gcc -fno-ident -O2 -g -pg -mfentry -ffile-prefix-map="$here"=/src -fno-pie -c with.c -o "$out/fentry-x86_64.o"
