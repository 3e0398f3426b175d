#!/bin/sh
# `make demo`: the commands that matter, on the small kernel in testdata/mini.
set -eu
ftpatch=$1
out=build/demo
mkdir -p "$out"
cp testdata/mini/vmlinux-callops "$out/vmlinux"

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n$ %s\n' "$*"; }
run() { say "ftpatch $*"; "$ftpatch" "$@"; }

cd "$out"
case $ftpatch in /*) ;; *) ftpatch=../../$ftpatch ;; esac
echo "A kernel of 20 KB with sixteen traceable functions, as a compiler and linker left it:"
run scan --sites
echo
echo "vfs_read's NOPs become a call of ftrace_caller; its record leaves the table that the kernel checks at boot:"
run enable --func vfs_read --report json=journal.json
echo
echo "The result, read again:"
run scan vmlinux.patched --sites --func '*'
echo
echo "A function may become another, too: one jump, in a copy that verify reads again:"
run redirect --func vfs_read --to vfs_write -o redirected
run verify vmlinux redirected
printf '\nWritten: %s/vmlinux.patched and the journal of every changed byte, %s/journal.json\n' "$out" "$out"
