# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the tests of whole machines share; sourced by tests/vm/guests-* and
# tests/vm/bad-input.
#
# A test is a function test_NAME. It prints a line for each thing it shows
# ("ok - ...", "not ok - ...: WHY"), and behind each test one line more says
# that nothing is left of it: no process, no file, no socket. Scripts take the
# names of tests to run as arguments; without any, all run.
#
# Everything happens below $work, which is in /tmp (in the emulated host the
# project's folder has no sockets and no holes).
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# What was ignored when we started stays so, here and in what we start: a shell
# in the background ignores SIGINT.
unignored=(env --default-signal=HUP,INT,QUIT,TERM)
build=$PWD/${BUILD:-build}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/microsbx
minimal=$cache/kernels/minimal/vmlinux

work=$(mktemp -d /tmp/microsbx-tests.XXXXXX) || exit 1
mkdir "$work/scratch" "$work/sockets" "$work/run" "$work/bin"
# Programs of this script's own: whatever runs from here is its leftover.
cp "$build/microsbx" "$build/microsbx-vmm" "$work/bin" || exit 1
microsbx=$work/bin/microsbx
# What a run may leave files in; XDG_RUNTIME_DIR only spares the probe of KVM.
export TMPDIR=$work/scratch XDG_RUNTIME_DIR=$work/run
trap 'rm -rf "$work"' EXIT

image=base kernel=$minimal # what trial() starts; no kernel: the image's own
status='' json=''          # of the last trial
wrap=()                    # a program and its options that starts microsbx
failed=0

skip() { printf 'skip - %s: %s\n' "$1" "$2"; }

ok() { printf 'ok - %s\n' "$1"; }

not_ok() {
    failed=1
    printf 'not ok - %s: %s\n' "$1" "${2//$'\n'/ | }"
}

# equal NAME GOT WANTED
equal() {
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        not_ok "$1" "'$2' is not '$3'"
    fi
}

# contains NAME TEXT PART...: every part is in the text.
contains() {
    local name=$1 text=$2 part
    shift 2
    for part in "$@"; do
        if [[ $text != *"$part"* ]]; then
            [ ${#text} -lt 600 ] || text=...${text: -600}
            not_ok "$name" "no '$part' in '$text'"
            return
        fi
    done
    ok "$name"
}

# until_true SECONDS COMMAND...: waits for it, a tenth of a second at a time.
until_true() {
    local left=$(($1 * 10))
    shift
    until "$@"; do
        [ $((left--)) -gt 0 ] || return 1
        sleep 0.1
    done
}

# --- trials -------------------------------------------------------------------

# trial [OPTION...] -- COMMAND...: runs it; sets $status and $json. The
# command's output is in $work/out and $work/err, ours in $work/said.
trial() {
    rm -f "$work/json" "$work/out" "$work/err"
    "${wrap[@]}" "$microsbx" run ${image:+--image "$image"} ${kernel:+--kernel "$kernel"} \
        --json "$work/json" --stdout "$work/out" --stderr "$work/err" \
        "$@" >"$work/said" 2>&1
    status=$?
    json=$(cat "$work/json" 2>/dev/null)
}

# The same in the background, with no signal ignored; trial_end waits for it.
# $harness is its id.
trial_begin() {
    rm -f "$work/json" "$work/out" "$work/err"
    "${unignored[@]}" "${wrap[@]}" "$microsbx" run \
        ${image:+--image "$image"} ${kernel:+--kernel "$kernel"} \
        --json "$work/json" --stdout "$work/out" --stderr "$work/err" \
        "$@" >"$work/said" 2>&1 </dev/null &
    harness=$!
}

trial_end() {
    wait "$harness"
    status=$?
    json=$(cat "$work/json" 2>/dev/null)
}

# The monitor of the trial in the background.
monitor_of() { cat "/proc/$1/task/$1/children" 2>/dev/null | tr -d ' '; }
has_monitor() { [ -n "$(monitor_of "$harness")" ]; }

# The workload has written this to its standard output.
has_printed() { grep -qs "$1" "$work/out"; }

# A plain field of the result: the first of that name, strings without quotes.
field() {
    [[ $json =~ \"$1\":(\"([^\"]*)\"|([^,\{\[\}]+)) ]] || return 1
    printf '%s' "${BASH_REMATCH[2]}${BASH_REMATCH[3]}"
}

# stream stdout|stderr bytes|sha256
stream() {
    [[ $json =~ \"$1\":\{\"file\":[^,]*,\"bytes\":([0-9]+),\"sha256\":\"([0-9a-f]+) ]] ||
        return 1
    case $2 in
    bytes) printf '%s' "${BASH_REMATCH[1]}" ;;
    *) printf '%s' "${BASH_REMATCH[2]}" ;;
    esac
}

# list NAME: a list of the result, as JSON without its brackets and quotes.
list() {
    [[ $json =~ \"$1\":\[([^]]*)\] ]] || return 1
    printf '%s' "${BASH_REMATCH[1]//\"/}"
}

# ended NAME STATUS OUTCOME BY: how the last trial did.
ended() {
    local got
    got="$status $(field outcome) $(field outcome_by)"
    if [ "$got" = "$2 $3 $4" ]; then
        ok "$1"
    else
        not_ok "$1" "'$got' is not '$2 $3 $4': $(tail -c 600 "$work/said") $json"
    fi
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

# guest_program NAME: tests/vm/guest/NAME.c as $work/NAME, for any Linux guest.
guest_program() {
    local source=tests/vm/guest/$1.c program=$build/tests/vm/$1
    if [ "$source" -nt "$program" ]; then
        mkdir -p "${program%/*}"
        "${CC:-gcc}" -std=gnu11 -D_GNU_SOURCE -O1 -Wall -Wextra -Werror \
            -static -o "$program.$$" "$source" &&
            mv "$program.$$" "$program" || exit 1
    fi
    cp "$program" "$work/$1"
}

# --- machines of our own ------------------------------------------------------

# The initrd whose init is tests/vm/guest/hostile_agent.c: $hostile_initrd.
build_hostile_agent() {
    local program=$build/tests/vm/hostile_agent dir=$work/hostile source
    local codec=(guest/proto*.c)
    hostile_initrd=$work/hostile.cpio
    source=tests/vm/guest/hostile_agent.c
    if [ -n "$(find "$source" "${codec[@]}" -newer "$program" 2>&1)" ]; then
        mkdir -p "${program%/*}"
        "${CC:-gcc}" -std=gnu11 -D_GNU_SOURCE -O1 -Wall -Wextra -Werror \
            -static -I. -o "$program.$$" "$source" "${codec[@]}" &&
            mv "$program.$$" "$program" || exit 1
    fi
    mkdir -p "$dir/dev"
    cp "$program" "$dir/init"
    (cd "$dir" && find . | cpio -o -H newc --quiet) >"$hostile_initrd"
}

# busybox_initrd FILE SCRIPT: an initrd that runs the script as init, with
# everything mounted and the shell's usual commands.
busybox_initrd() {
    local dir=$work/busybox.d
    rm -rf "$dir"
    mkdir -p "$dir"/{bin,dev,proc,sys,mnt}
    cp "$(command -v busybox)" "$dir/bin/busybox"
    {
        cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
INIT
        printf '%s\n' "$2"
    } >"$dir/init"
    chmod +x "$dir/init"
    (cd "$dir" && find . | cpio -o -H newc --quiet) >"$1"
}

# boot OPTION...: boots the minimal kernel; sets $status, the console is in
# $work/console.
boot() {
    "$microsbx" boot --kernel "$minimal" "$@" >"$work/console" \
        2>"$work/said" </dev/null
    status=$?
}

# --- nothing is left ----------------------------------------------------------

# Prints what a trial could have left: processes of ours, files in $TMPDIR,
# sockets, long-lived machines; prints nothing if it is clean.
leftovers() {
    find /proc/[0-9]*/exe -maxdepth 0 -lname "$work/*" -printf '%h\n' \
        2>/dev/null | sed 's|^/proc/|process |'
    find "$work/scratch" "$work/sockets" "$work/run/microsbx/machines" \
        -mindepth 1 2>/dev/null
}

# Planted leftovers are found by the very code that looks for real ones.
check_leftovers() {
    local found
    cp "$(command -v sleep)" "$work/bin/planted"
    "$work/bin/planted" 100 &
    until_true 10 grep -qs planted "/proc/$!/comm"
    echo >"$TMPDIR/microsbx-overlay-planted"
    python3 -c 'import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$work/sockets/planted"
    found=$(leftovers)
    contains "planted leftovers are found" "$found" "process $!" \
        "microsbx-overlay-planted" "sockets/planted"
    kill "$!"
    wait "$!" 2>/dev/null
    rm -f "$work/bin/planted" "$TMPDIR"/* "$work"/sockets/*
    equal "without them nothing is found" "$(leftovers)" ""
}

# edit_manifest DIR STATEMENTS: changes a manifest m by Python, and its digest
# with it.
edit_manifest() {
    chmod u+w "$1"/manifest.*
    python3 - "$1" "$2" <<'P'
import hashlib, json, sys
path = sys.argv[1] + '/manifest'
m = json.load(open(path + '.json'))
exec(sys.argv[2])
text = json.dumps(m, sort_keys=True, separators=(',', ':')) + '\n'
open(path + '.json', 'w').write(text)
open(path + '.sha256', 'w').write(hashlib.sha256(text.encode()).hexdigest() + '\n')
P
}

run_tests() {
    local name began
    [ $# -gt 0 ] ||
        # shellcheck disable=SC2046
        set -- $(declare -F | sed -n 's/^declare -f test_//p')
    check_leftovers
    for name in "$@"; do
        began=$SECONDS
        "test_$name"
        until_true 3 is_clean
        equal "$name: nothing is left" "$(leftovers)" ""
        echo "# $name took $((SECONDS - began)) s"
    done
    exit $failed
}

is_clean() { [ -z "$(leftovers)" ]; }
