#!/bin/sh
# Debian 12: aarch64-linux-gnu-gcc 12. Each file is linked without a C library, so that it stays small.
set -e
cd "$(dirname "$0")"
options="-O2 -fno-asynchronous-unwind-tables -fno-stack-protector -nostdlib -Wl,-z,separate-code,-z,max-page-size=4096,--build-id=none"
build() { # output, NOPs, options
	aarch64-linux-gnu-gcc $options -fpatchable-function-entry=$2 $3 -Wl,-e,start pads.c targets-arm64.S -o "$1"
}
build arm64-pie 6,5 "-fPIE -pie"
build arm64-bti 6,5 "-fPIE -pie -mbranch-protection=standard"
build arm64-so 5,4 "-fPIC -shared"
build arm64-exec 4,3 "-fno-pie -no-pie -Wl,-z,noseparate-code"
build arm64-small 2,1 "-fno-pie -no-pie -Wl,-z,noseparate-code"
