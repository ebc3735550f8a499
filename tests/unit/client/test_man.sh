#!/bin/sh
# The manual pages in the tree are those that the program would write now, and roff likes them.
set -eu
program=$1 source=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$source/docs/man/make" "$program" "$dir"
test "$(ls "$dir" | wc -l)" -ge 15
for page in "$dir"/*.1; do
    cmp "$page" "$source/docs/man/$(basename "$page")" || { echo "run: cmake --build BUILD --target make-man"; exit 1; }
    if command -v groff >/dev/null; then
        groff -man -Tutf8 -ww -z "$page" 2>"$dir/warnings"
        test ! -s "$dir/warnings" || { cat "$dir/warnings"; exit 1; }
    fi
done
