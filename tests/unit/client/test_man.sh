#!/bin/sh
# The manual pages in the tree are those that the programs would write now, and roff likes them.
set -eu
source=$1
shift
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$source/docs/man/make" "$dir" "$@"
test "$(ls "$dir" | wc -l)" -ge 19
for page in "$dir"/*.[18]; do
    cmp "$page" "$source/docs/man/$(basename "$page")" || { echo "run: cmake --build BUILD --target make-man"; exit 1; }
    if command -v groff >/dev/null; then
        groff -man -Tutf8 -ww -z "$page" 2>"$dir/warnings"
        test ! -s "$dir/warnings" || { cat "$dir/warnings"; exit 1; }
    fi
done
