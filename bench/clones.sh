# SPDX-License-Identifier: Apache-2.0
#
# Memory of many guests restored from one snapshot: what their monitors have of
# their own (guest memory included), beyond the one copy of the snapshot's
# memory that all share. Idle: the agent has acknowledged the restore and waits.
# Then the same once a command in each has touched 64 MiB.

clones=20
memory=256M
touched_kib=65536

bench_setup() {
    [ "$(id -u)" = 0 ] || skip_reason="only root may look into a monitor"
    [ -z "$skip_reason" ] || return 0
    "$dir/microsbx" snapshot create --image "$MICROSBX_BENCH_IMAGE" \
        --kernel "$dir/minimal" -m $memory -o "$dir/snapshot" >&2 ||
        die "snapshot create failed"
}

# What a process has of its own. Of the snapshot's memory that is what is no
# longer the file's: a page of the file is shared, whoever reads it now.
own_kib() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / { snapshot = /\/memory$/ }
        /^Private_(Dirty|Clean):/ && !snapshot { sum += $2 }
        /^Anonymous:/ && snapshot { sum += $2 }
        END { print sum + 0 }' "/proc/$1/smaps"
}

# The processes of a program below $dir.
processes_of() {
    local exe

    for exe in /proc/[0-9]*/exe; do
        [ "$(readlink "$exe")" != "$dir/$1" ] || echo "${exe//[^0-9]/}"
    done
}

# Sets $sum_kib over the processes of a program, and how many of them have
# touched their 64 MiB: $touched.
measure() {
    local pid own

    sum_kib=0 touched=0
    for pid in $(processes_of "$1"); do
        own=$(own_kib "$pid")
        sum_kib=$((sum_kib + own))
        [ "$own" -lt $touched_kib ] || touched=$((touched + 1))
    done
}

start_clones() {
    local i

    for i in $(seq $clones); do
        progress "bench/$bench: guest $i of $clones"
        "$dir/microsbx" run -d --snapshot "$dir/snapshot" --name "clone$i" \
            >/dev/null || die "guest $i did not start"
    done
    progress ""
}

# Nobody reads that pipe, so that all of it stays in the writer's buffer.
touch_memory() {
    local i patience

    for i in $(seq $clones); do
        progress "bench/$bench: guest $i of $clones touches memory"
        "$dir/microsbx" exec "clone$i" -- \
            sh -c 'dd if=/dev/zero bs=64M count=1 | sleep 3600' \
            >"$dir/out" 2>&1 </dev/null &
        patience=200
        measure microsbx-vmm
        until [ "$touched" = "$i" ]; do
            [ $((patience--)) -gt 0 ] ||
                die "guest $i does not touch its memory: $(cat "$dir/out")"
            sleep 0.3
            measure microsbx-vmm
        done
    done
    progress ""
    sleep 2
}

report_clones() {
    measure microsbx-vmm
    report_one "$clones guests, $1" $sum_kib KiB "${2-}"
    report_one "  a guest, on average" $((sum_kib / clones)) KiB
}

bench_run() {
    local i

    start_clones
    sleep 5
    report_clones "idle" $((clones * 3 * 1024))
    measure microsbx
    report_one "  its harness, on average" $((sum_kib / clones)) KiB
    report_one "  the copy that all share" \
        $(($(stat -c %b "$dir/snapshot/memory") / 2)) KiB
    touch_memory
    report_clones "64 MiB touched"
    for i in $(seq $clones); do
        "$dir/microsbx" rm -f "clone$i" >/dev/null
    done
}
