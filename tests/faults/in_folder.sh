#!/bin/sh
# in_folder.sh PROGRAM ARGUMENTS...: runs PROGRAM --dir FOLDER ARGUMENTS... with a new folder, which is removed when it
# succeeds and named when it does not.
set -u
dir=$(mktemp -d "${TMPDIR:-/tmp}/pm-fault-XXXXXX") || exit 1
program=$1
shift
"$program" --dir "$dir" "$@"
status=$?
if [ $status -eq 0 ] || [ $status -eq 77 ]; then rm -rf "$dir"; else echo "kept: $dir"; fi
exit $status
