#!/bin/sh
# Verify the fixtures; with --rebuild also that the sources give the same bytes, and with
# --run (after it) that they run and can be traced under qemu-ppc64le.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" = --rebuild ]; then
	shift
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	"$here/build.sh" "$tmp"
	for f in "$tmp"/*; do
		cmp "$f" "$here/$(basename "$f")"
	done
	echo "rebuilt files are identical"
fi
${PYTHON:-python3} "$here/check.py" "$@"
