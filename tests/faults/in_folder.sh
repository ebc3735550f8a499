#!/bin/sh
# in_folder.sh PROGRAM ARGUMENTS...: runs PROGRAM --dir FOLDER ARGUMENTS... with a new folder, which is removed when it
# succeeds and named when it does not.
set -u
# In memory where there is room: these tests sync a lot, and none of them is about the speed of a disk.
room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
parent=${TMPDIR:-/tmp}
if [ -w /dev/shm ] && [ "${room:-0}" -gt 1000000 ]; then parent=/dev/shm; fi
dir=$(mktemp -d "$parent/pm-fault-XXXXXX") || exit 1
program=$1
shift
"$program" --dir "$dir" "$@"
status=$?
if [ $status -eq 0 ] || [ $status -eq 77 ]; then rm -rf "$dir"; else echo "kept: $dir"; fi
exit $status
