# SPDX-License-Identifier: Apache-2.0
#
# Private memory (Private_Dirty and Private_Clean, so pages of its own program
# file count too unless others map them) of the monitor and of the harness
# beside it, with a Linux guest of 128 MiB, a disk and a vsock; the guest's
# memory is left out. QEMU's stands beside it for scale. Then the same for
# `microsbx run`, while its command runs.

bench_setup() {
    [ "$(id -u)" = 0 ] || skip_reason="only root may look into a monitor"
    truncate -s 64M "$dir/disk"
}

print_ours() {
    echo "monitor_kib $(private_kib "$(child_of "$1")")"
    echo "harness_kib $(private_kib "$1")"
}

run_ours() {
    rm -f "$dir/v.sock"
    watch_ours minimal guest-initrd bench=idle -u "bench: ready" \
        -x "$top/bench/inside call print_ours \$VM_PID" -- \
        --disk "$dir/disk,rw" --vsock "$dir/v.sock"
}

run_qemu() {
    local vsock=()

    [ ! -w /dev/vhost-vsock ] ||
        vsock=(-device vhost-vsock-device,guest-cid=4242)
    watch_qemu minimal guest-initrd bench=idle -u "bench: ready" \
        -x "echo monitor_kib \$($top/bench/inside call private_kib \$VM_PID)" \
        -- -drive "id=d,file=$dir/disk,format=raw,if=none" \
        -device virtio-blk-device,drive=d "${vsock[@]}"
}

# The whole way: image, overlay, agent, a command.
measure_run() {
    "$dir/vm_watch" -t 300 -u "command runs" \
        -x "$top/bench/inside call print_ours \$VM_PID" -- \
        "$dir/microsbx" run --image "$MICROSBX_BENCH_IMAGE" -m 128M -- \
        sh -c 'echo command runs; sleep 60' >"$dir/lines" ||
        die "microsbx run failed"
}

bench_run() {
    local pairs=1

    run_pairs
    report_one "monitor of an idle machine" "$(sample ours monitor_kib)" KiB \
        2048 "$(sample qemu monitor_kib)"
    measure_run
    report_one "monitor during microsbx run" \
        "$(value_of monitor_kib <"$dir/lines")" KiB 2048
    report_one "harness during microsbx run" \
        "$(value_of harness_kib <"$dir/lines")" KiB 4096
}
