# SPDX-License-Identifier: Apache-2.0
#
# CPU time, in ten seconds of a guest that sleeps, of all the monitor's threads
# but the vCPUs' (and of the harness beside it): what is beyond the guest's own
# timer. The guest's kernel draws entropy from virtio-rng now and then, which
# QEMU gets here for the same work.

idle_seconds=10

bench_setup() {
    truncate -s 64M "$dir/disk"
}

# Nanoseconds on a CPU so far, of each thread of process $1.
thread_times() {
    local task

    for task in "/proc/$1/task"/*; do
        echo "${task##*/} $(cut -d' ' -f1 "$task/schedstat")"
    done
}

# All of a process.
process_time() {
    thread_times "$1" | awk '{ sum += $2 } END { print sum }'
}

# print_idle MONITOR [HARNESS]: microseconds of the ten seconds. The vCPU's
# thread is the one that has used most: it booted the guest.
print_idle() {
    local before after harness=0

    sleep 2
    before=$(thread_times "$1")
    [ -z "${2-}" ] || harness=$(process_time "$2")
    sleep $idle_seconds
    after=$(thread_times "$1")
    [ -z "${2-}" ] ||
        echo "harness_us $((($(process_time "$2") - harness) / 1000))"
    awk 'NR == FNR { was[$1] = $2; if ($2 > most) { most = $2; vcpu = $1 }; next }
        $1 == vcpu { v = $2 - was[$1]; next }
        { other += $2 - was[$1] }
        END { printf "vcpu_us %d\nother_us %d\n", v / 1e3, other / 1e3 }' \
        <(echo "$before") <(echo "$after")
}

print_idle_pair() {
    print_idle "$(child_of "$1")" "$1"
}

run_ours() {
    rm -f "$dir/v.sock"
    watch_ours minimal guest-initrd bench=idle -u "bench: ready" \
        -x "$top/bench/inside call print_idle_pair \$VM_PID" -- \
        --disk "$dir/disk,rw" --vsock "$dir/v.sock"
}

run_qemu() {
    watch_qemu minimal guest-initrd bench=idle -u "bench: ready" \
        -x "$top/bench/inside call print_idle \$VM_PID" -- \
        -drive "id=d,file=$dir/disk,format=raw,if=none" \
        -device virtio-blk-device,drive=d -device virtio-rng-device
}

bench_run() {
    local pairs=1

    run_pairs
    report_one "vCPU thread: the guest's own" "$(sample ours vcpu_us)" us "" \
        "$(sample qemu vcpu_us)"
    report_one "all other threads of the monitor" "$(sample ours other_us)" us \
        10000 "$(sample qemu other_us)"
    report_one "harness" "$(sample ours harness_us)" us 10000
}
