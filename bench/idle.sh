# SPDX-License-Identifier: Apache-2.0
#
# CPU time, in ten seconds of a guest that sleeps, of all the monitor's threads
# but the vCPUs' (and of the harness beside it): what is beyond the guest's own
# timer.

idle_seconds=10

bench_setup() {
    truncate -s 64M "$dir/disk"
}

# Nanoseconds on a CPU of the threads of process $1; "vcpu" or "other" are they
# by whether they ever were in KVM_RUN for long: the vCPU of a machine with one
# has used by far the most.
thread_times() {
    local task

    for task in "/proc/$1/task"/*; do
        echo "${task##*/} $(cut -d' ' -f1 "$task/schedstat")"
    done
}

# print_idle MONITOR [HARNESS]
print_idle() {
    local before after

    sleep 2
    before=$(thread_times "$1")
    [ -z "${2-}" ] || harness=$(thread_times "$2" | awk '{ s += $2 } END { print s }')
    sleep $idle_seconds
    after=$(thread_times "$1")
    [ -z "${2-}" ] ||
        echo "harness_us $((($(thread_times "$2" | awk '{ s += $2 } END { print s }') - harness) / 1000))"
    awk 'NR == FNR { was[$1] = $2; if ($2 > most) { most = $2; vcpu = $1 }; next }
        $1 == vcpu { v = $2 - was[$1]; next }
        { other += $2 - was[$1] }
        END { printf "vcpu_us %d\nother_us %d\n", v / 1e3, other / 1e3 }' \
        <(echo "$before") <(echo "$after")
}

run_ours() {
    rm -f "$dir/v.sock"
    watch_ours minimal guest-initrd bench=idle -u "bench: ready" \
        -x "$top/bench/inside call print_idle \$($top/bench/inside call child_of \$VM_PID) \$VM_PID" \
        -- --disk "$dir/disk,rw" --vsock "$dir/v.sock"
}

run_qemu() {
    watch_qemu minimal guest-initrd bench=idle -u "bench: ready" \
        -x "$top/bench/inside call print_idle \$VM_PID" -- \
        -drive "id=d,file=$dir/disk,format=raw,if=none" \
        -device virtio-blk-device,drive=d
}

bench_run() {
    local pairs=1 ours

    run_pairs
    ours=$(awk '$2 == "ours" { print $3, $4 }' "$dir/samples")
    report vcpu_us "vCPU thread (the guest's own)" us 1 -
    report other_us "all other threads of the monitor" us 1 -
    report_one "  the same, in 10 s" "$(value_of other_us <<<"$ours")" us 10000
    report_one "harness, in 10 s" "$(value_of harness_us <<<"$ours")" us 10000
}
