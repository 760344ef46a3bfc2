# SPDX-License-Identifier: Apache-2.0
#
# Memory of many guests restored from one snapshot: what their monitors have of
# their own (guest memory included), beyond the one copy of the snapshot's
# memory that all share. Each runs a command that sleeps. Then the same once
# each has touched 64 MiB.

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

# What a process has of its own: not pages of the snapshot that it only reads,
# though nobody else may happen to read them now.
own_kib() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / { snapshot = /\/memory$/ }
        /^Private_Dirty:/ { sum += $2 }
        /^Private_Clean:/ && !snapshot { sum += $2 }
        END { print sum + 0 }' "/proc/$1/smaps"
}

# start_clones COMMAND...: sets $harnesses.
start_clones() {
    local i

    harnesses=()
    for i in $(seq $clones); do
        progress "bench/$bench: guest $i of $clones"
        "$dir/microsbx" run --snapshot "$dir/snapshot" --timeout 1h \
            --events "$dir/events" -- "$@" >"$dir/out" 2>&1 </dev/null &
        harnesses+=($!)
        until grep -qs '"event": "started"' "$dir/events"; do
            kill -0 $! 2>/dev/null || die "a guest ended: $(cat "$dir/out")"
            sleep 0.05
        done
        rm "$dir/events"
    done
    progress ""
}

stop_clones() {
    kill "${harnesses[@]}"
    wait "${harnesses[@]}" || true
}

# Sets $monitors_kib, $harnesses_kib and $least_kib, the smallest monitor.
measure_clones() {
    local pid own

    monitors_kib=0 harnesses_kib=0 least_kib=
    for pid in "${harnesses[@]}"; do
        own=$(own_kib "$(child_of "$pid")")
        monitors_kib=$((monitors_kib + own))
        [ "$own" -ge "${least_kib:-$own}" ] || least_kib=$own
        least_kib=${least_kib:-$own}
        harnesses_kib=$((harnesses_kib + $(own_kib "$pid")))
    done
}

wait_until_touched() {
    local patience=600

    measure_clones
    until [ "$least_kib" -ge $touched_kib ]; do
        [ $((patience--)) -gt 0 ] || die "a guest does not touch its memory"
        sleep 0.5
        measure_clones
    done
}

bench_run() {
    start_clones sleep 3600
    sleep 5
    measure_clones
    report_one "$clones idle guests" $monitors_kib KiB $((clones * 3 * 1024))
    report_one "  a guest, on average" $((monitors_kib / clones)) KiB
    report_one "  a harness, on average" $((harnesses_kib / clones)) KiB
    report_one "  the copy that all share" \
        $(($(stat -c %b "$dir/snapshot/memory") / 2)) KiB
    stop_clones
    # Nobody reads that pipe: all of it stays in the writer's buffer.
    start_clones sh -c 'dd if=/dev/zero bs=64M count=1 | sleep 3600'
    wait_until_touched
    sleep 5
    measure_clones
    report_one "$clones guests, 64 MiB touched" $monitors_kib KiB
    report_one "  a guest, on average" $((monitors_kib / clones)) KiB
    stop_clones
}
