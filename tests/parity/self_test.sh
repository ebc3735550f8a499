#!/bin/sh
# The parity program has to fail when something is wrong: self_test.sh PARITY GOLDENS
set -eu
parity=$1
goldens=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# expect CODE WHAT ARGUMENTS...: runs parity, its output goes to $work/out.
expect() {
    wanted=$1 what=$2
    shift 2
    code=0
    "$parity" "$@" >"$work/out" 2>&1 || code=$?
    if [ "$code" -ne "$wanted" ]; then
        echo "$what: exit code $code instead of $wanted"
        cat "$work/out"
        exit 1
    fi
}

cases() { # cases DIR FILE...: a fresh folder with these golden files
    rm -rf "$1"
    mkdir "$1"
    for file in $2; do cp "$goldens/$file" "$1"; done
}

cases "$work/good" "resize.jsonl resize.safetensors"
expect 0 "good cases" ppocr "$work/good"
tail -n 1 "$work/out" | grep -q '^[1-9][0-9]* passed, 0 failed$'
expect 0 "a single file" ppocr "$work/good/resize.jsonl"

cases "$work/changed" "ctc.jsonl"
sed '1s/"text":"/"text":"x/' "$goldens/ctc.jsonl" >"$work/changed/ctc.jsonl"
expect 1 "another text" ppocr "$work/changed"
tail -n 1 "$work/out" | grep -q ' 1 failed$'

cases "$work/torn" "resize.jsonl"
head -c 2000 "$goldens/resize.safetensors" >"$work/torn/resize.safetensors"
expect 1 "torn tensors" ppocr "$work/torn"

cases "$work/alone" "resize.jsonl"
expect 1 "tensors missing" ppocr "$work/alone"

cases "$work/listless" "resize.jsonl resize.safetensors postprocess.safetensors"
expect 1 "tensors without cases" ppocr "$work/listless"

cases "$work/hollow" "resize.safetensors"
: >"$work/hollow/resize.jsonl"
expect 1 "a file without a case" ppocr "$work/hollow"

cases "$work/bad" "resize.safetensors"
echo '{"case":' >"$work/bad/resize.jsonl"
expect 1 "a line that is not JSON" ppocr "$work/bad"

cases "$work/strange" "resize.jsonl resize.safetensors"
echo '{}' >"$work/strange/other.jsonl"
expect 1 "a file that no check owns" ppocr "$work/strange"

cases "$work/pageless" "end_to_end.jsonl"
expect 1 "pages missing" ppocr "$work/pageless" --pages "$work"
expect 1 "model missing" ppocr "$goldens/end_to_end.jsonl" --model "$work"

cases "$work/empty" ""
expect 2 "an empty folder" ppocr "$work/empty"
expect 2 "no such folder" ppocr "$work/nowhere"
expect 2 "one good and one empty folder" ppocr "$work/good" "$work/empty"
expect 2 "unknown kind" nothing "$work/good"
expect 2 "unknown option" ppocr "$work/good" --fast
expect 2 "no path" ppocr
expect 2 "no kind"
expect 0 "help" --help
