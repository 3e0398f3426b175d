#!/bin/sh
# Debian 12: gcc 12 of each machine. ppc64le needs NOPs at the local entry, which clang places there: ZIGCC is `zig cc`.
set -e
cd "$(dirname "$0")"
options="-O2 -fno-asynchronous-unwind-tables -fno-stack-protector -nostdlib -Wl,-z,max-page-size=4096,--build-id=none"
link="-fPIC -shared -Wl,-soname,hooks.so"
aarch64-linux-gnu-gcc $options $link -DIFUNC -fpatchable-function-entry=2 hooks.c -o arm64-so
gcc $options $link -DIFUNC -fcf-protection=none -fpatchable-function-entry=5 hooks.c -o x86_64-so
gcc $options $link -fcf-protection=none -fpatchable-function-entry=5 -mavx -DWIDE hooks.c -o x86_64-avx-so
${ZIGCC:-zig cc} -target powerpc64le-linux-gnu.2.36 -O2 -fPIC -shared -nostdlib -g0 -fno-sanitize=all -Dnoipa=noinline \
	-Xclang -fpatchable-function-entry=2 -Wl,-soname,hooks.so -Wl,-z,max-page-size=4096 hooks.c -o ppc64le-so
