# SPDX-License-Identifier: Apache-2.0
#
# vsock from the host: round trip of 64 bytes, and streams both ways, against
# vhost-vsock. That one lives in the host's kernel; ours does not, on purpose,
# and pays for it.

bench_setup() {
    [ -w /dev/vhost-vsock ] || skip_reason="no /dev/vhost-vsock"
}

run_ours() {
    rm -f "$dir/v.sock"
    watch_ours minimal guest-initrd bench=vsock -u "bench: ready" \
        -x "$dir/vsock_peer uds:$dir/v.sock" -- --vsock "$dir/v.sock"
}

run_qemu() {
    watch_qemu minimal guest-initrd bench=vsock -u "bench: ready" \
        -x "$dir/vsock_peer cid:4242" -- \
        -device vhost-vsock-device,guest-cid=4242
}

bench_run() {
    run_pairs
    report rtt_us "round trip of 64 bytes" us 1 max 1.5
    report to_guest_mib_s "host to guest" MiB/s 1 min 0.7
    report from_guest_mib_s "guest to host" MiB/s 1 min 0.7
}
