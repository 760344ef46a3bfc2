# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the tests of snapshots share; sourced after lib.sh.

snapshots=$work/snapshots
mkdir "$snapshots"
warm=$snapshots/warm

# create NAME OPTION...: a snapshot of the base image; sets $status and $id.
create() {
    local name=$1
    shift
    id=$("$microsbx" snapshot create --image base --kernel "$minimal" \
        -o "$snapshots/$name" "$@" 2>"$work/said")
    status=$?
}

# restored [OPTION...] -- COMMAND...: a trial from $warm.
restored() {
    local image='' kernel=''
    trial --snapshot "${from:-$warm}" "$@"
}

# One for all tests, with a file on the disk and one in memory.
make_warm() {
    [ ! -d "$warm" ] || return 0
    create warm --warmup 'echo warm | tee /tmp/disk /tmp/old /tmp/kept \
        /tmp/mode >/dev/shm/memory'
    equal "a snapshot is made" "$status" 0
    [ "$status" = 0 ] || sed 's/^/# /' "$work/said"
    equal "its id is the manifest's digest" "$id" \
        "$(digest "$warm/manifest.json")"
    equal "which is said there, too" "$(cat "$warm/manifest.sha256")" "$id"
}

# refused NAME CODE TEXT: how the last trial was.
refused() {
    ended "$1" 125 infra_never_ran host
    equal "  its code" "$(field code)" "$2"
    contains "  its sentence" "$(cat "$work/said")" "$3"
}

# look_for TEXT FILE...: names the files that have it; holes are not read.
look_for() {
    python3 - "$@" <<'P'
import os, sys
want = sys.argv[1].encode()
for path in sys.argv[2:]:
    with open(path, 'rb') as f:
        end, at, found = os.path.getsize(path), 0, False
        while at < end and not found:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            found = want in os.pread(f.fileno(), stop - at, at)
            at = stop
        if found:
            print(os.path.basename(path))
P
}
