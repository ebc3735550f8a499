#!/bin/sh
# Installs into a fresh folder and builds examples/submit.c against what is there, as a stranger would:
# with pkg-config, shared and static, and the header alone from C++ and from pedantic C99.
set -eu
build=$1 source=$2 cc=$3 cmake=$4 libdir=$5
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
DESTDIR=$dir/root "$cmake" --install "$build" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
export PKG_CONFIG_PATH="$dir/root$prefix/$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir/root"
cd "$dir"
test "$(wc -l <"$source/examples/submit.c")" -lt 60

"$cc" -Wall -Wextra -Werror "$source/examples/submit.c" $(pkg-config --cflags --libs pagemill) -o shared
lib=$dir/root$prefix/$libdir
LD_LIBRARY_PATH=$lib ./shared one two 2>err && exit 1
test -s err
if ldd shared | grep -q 'libpagemill.*not found'; then :; fi
"$cc" -Wall -Wextra -Werror "$source/examples/submit.c" $(pkg-config --cflags pagemill) "$lib/libpagemill.a" \
    $(pkg-config --static --libs-only-l pagemill | sed 's/-lpagemill//') -o static
PAGEMILL_SOCKET=$dir/none ./static one two 2>err && exit 1
grep -q 'no fleet' err

# Nothing but our own names is visible.
nm -D --defined-only "$lib/libpagemill.so" | awk '$2 != "A" { print $3 }' | grep -v '^pagemill_' && exit 1
nm --defined-only --extern-only "$lib/libpagemill.a" | awk 'NF == 3 { print $3 }' | grep -v '^pagemill_' && exit 1

printf '#include <pagemill.h>\nint main() { pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT; return o.priority != 2; }\n' >probe.cc
if command -v c++ >/dev/null; then
    c++ -Wall -Wextra -Werror -pedantic $(pkg-config --cflags pagemill) probe.cc -o probe && ./probe
fi
printf '#include <pagemill.h>\nint main(void) { struct pagemill_list_options o = PAGEMILL_LIST_OPTIONS_INIT; return o.state; }\n' >probe.c
"$cc" -std=c99 -Wall -Wextra -Werror -pedantic $(pkg-config --cflags pagemill) probe.c -o probe && ./probe

# Programs and manuals are where they belong.
for program in pagemill pagemill-broker pagemill-layoutd pagemill-decode pagemill-worker pagemill-collector; do
    test -x "$dir/root$prefix/bin/$program" || { echo "$program is not installed"; exit 1; }
done
test -f "$dir/root$prefix/share/pagemill/models/ppocr/pagemill.json"
test -f "$dir/root$prefix/share/man/man1/pagemill-parse.1"
"$dir/root$prefix/bin/pagemill" model list | grep -q '^fast '
echo ok
