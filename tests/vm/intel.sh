# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What tests/vm/intel and tests/vm/long-intel share.

failed=0
minimal=${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/kernels/minimal/vmlinux

# on_intel_host SECONDS ARGUMENT...: unless this is the emulated Intel host, do
# all there; end with 77 and the reason where it cannot be had. There is no
# compiler there: what guests run is made before.
on_intel_host() {
    local seconds=$1 bochs status
    shift
    [ -z "${VMXHOST-}" ] || return 0
    bochs=$(scripts/packages bochs 2>&1) || {
        echo "${bochs##*$'\n'}"
        exit 77
    }
    (. tests/vm/lib.sh && guest_program registers) || exit 1
    outside=$(mktemp -d "${TMPDIR:-/tmp}/intel.XXXXXX") || exit 1
    shared=$(mktemp -d "${TMPDIR:-/tmp}/intel.XXXXXX") || exit 1
    trap 'rm -rf "$outside" "$shared"' EXIT
    ! declare -F test_manners >/dev/null || test_manners
    echo "there and back" >"$shared/given"
    MICROSBX_TEST_GIVEN=$shared/given TMPDIR=$outside scripts/vmxhost \
        -t "$seconds" -x "$shared/given" -o "$shared/left" -- "$0" "$@"
    status=$?
    is "a file goes there and back" "$(cat "$shared/left/given")" \
        "there and back"
    is "nothing is left of the emulated Intel host" "$(left_outside)" ""
    exit $((status > failed ? status : failed))
}

# Processes and files of emulated Intel hosts that have their files in $outside.
left_outside() {
    grep -lsaF "$outside" /proc/[0-9]*/cmdline
    ls "$outside"
}

# is NAME GOT WANTED
is() {
    if [ "$2" = "$3" ]; then
        echo "ok - $1"
    else
        failed=1
        echo "not ok - $1: '$2' is not '$3'"
    fi
}

# has NAME TEXT PART...: every part is in the text.
has() {
    local name=$1 text=$2 part
    shift 2
    for part in "$@"; do
        if [[ $text != *"$part"* ]]; then
            failed=1
            echo "not ok - $name: no '$part' in '${text//$'\n'/ | }'"
            return
        fi
    done
    echo "ok - $name"
}

# program NAME COMMAND...: one that counts its tests itself; that it ends badly
# without saying so is a failure, too.
program() {
    local name=$1 began=$SECONDS status
    shift
    "$@" 2>&1 </dev/null | tee /tmp/said
    status=${PIPESTATUS[0]}
    echo "# $name ended with $status after $((SECONDS - began)) s of this host's"
    [ $status != 0 ] || return 0
    failed=1
    grep -qE '^not ok - |^[0-9]+%: Checks: .*(Failures: [1-9]|Errors: [1-9])' \
        /tmp/said || echo "not ok - $name: it ended with status $status"
}

# run_parts PART... -- ARGUMENT...: those named by the arguments, or all.
run_parts() {
    local parts=() part
    while [ "$1" != -- ]; do
        parts+=("$1")
        shift
    done
    shift
    [ $# -gt 0 ] || set -- "${parts[@]}"
    for part in "$@"; do "test_$part"; done
    cp "$MICROSBX_TEST_GIVEN" /out
    exit $failed
}
