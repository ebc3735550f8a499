#!/bin/sh
# test_daemons.sh BROKER LAYOUTD WORKER COLLECTOR: wrong usage is told with all that is needed to put it right
# and ends with 64; a configuration that cannot work ends with 78; questions are answered with 0.
set -u
broker=$1 layoutd=$2 worker=$3 collector=$4
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0

# expect STATUS TEXT PROGRAM ARGUMENT...: TEXT is in what the program writes.
expect() {
    status=$1 text=$2
    shift 2
    "$@" >"$dir/out" 2>&1 </dev/null
    got=$?
    if [ $got -ne "$status" ] || ! grep -qF -e "$text" "$dir/out"; then
        echo "$*: exit $got instead of $status, or no \"$text\" in:"
        cat "$dir/out"
        failures=$((failures + 1))
    fi
}

for program in "$broker" "$layoutd" "$worker" "$collector"; do
    name=$(basename "$program")
    expect 0 "$name " "$program" --version
    expect 0 "$name - " "$program" --help
    expect 0 "--log-level LEVEL" "$program" --help
    expect 64 "$name: --log-level is debug, info, warning or error, not \"loud\"" "$program" --log-level loud
    expect 64 "unknown option --zzzzzz; see $name --help" "$program" --zzzzzz
    expect 64 "did you mean --log-level?" "$program" --log-lvel=info
    expect 64 "--log-level wants a value: --log-level LEVEL" "$program" --log-level
done
for program in "$layoutd" "$worker" "$collector"; do
    name=$(basename "$program")
    expect 64 "--endpoint URL is missing; usage: $name --endpoint URL" "$program"
    expect 64 "did you mean --endpoint?" "$program" --endpont ipc:///x
    expect 64 "--credit wants a whole number from 1 to " "$program" --credit 0
    expect 64 "not \"many\"" "$program" --credit many
    expect 64 "--give-up wants a whole number from 1 to 1073741824, not \"0\"" "$program" --give-up 0
done
expect 64 "--state DIR is missing" "$broker" --run "$dir/run"
expect 64 "--run DIR is missing" "$broker" --state "$dir/state"
expect 64 "--drain wants a whole number from 0 to 86400, not \"-1\"" "$broker" --drain -1
expect 64 "--model DIR is missing" "$layoutd" --endpoint ipc:///x
expect 64 "--models DIR[:DIR...] is missing" "$worker" --endpoint ipc:///x
expect 64 "unexpected argument \"extra\"" "$collector" --endpoint ipc:///x extra
expect 64 "unexpected argument \"extra\"" "$broker" --state "$dir/state" --run "$dir/run" extra

expect 78 "$dir/none" "$worker" --endpoint ipc:///x --models "$dir/none"
expect 78 "PAGEMILL_ISA asks for \"mmx\"" env PAGEMILL_ISA=mmx "$worker" --endpoint ipc:///x --models "$dir/none"
expect 78 "$dir/none" "$layoutd" --endpoint ipc:///x --model "$dir/none"
mkdir -m 0777 "$dir/open" && chmod 0777 "$dir/open"
expect 78 "$dir/open" "$broker" --state "$dir/open" --run "$dir/run"
exit $((failures > 0))
