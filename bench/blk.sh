# SPDX-License-Identifier: Apache-2.0
#
# virtio-blk, as a guest sees it that bypasses its page cache: one request at a
# time on the same raw file in memory. QEMU gets an I/O thread, and like ours
# goes through the host's page cache.

disk_mib=64

bench_setup() {
    dd if=/dev/urandom of="$dir/disk" bs=1M count=$disk_mib status=none
}

run_ours() {
    watch_ours minimal guest-initrd bench=blk -u "bench: done" -- \
        --disk "$dir/disk,rw"
}

run_qemu() {
    watch_qemu minimal guest-initrd bench=blk -u "bench: done" -- \
        -object iothread,id=io \
        -drive "id=d,file=$dir/disk,format=raw,if=none,cache=writeback" \
        -device virtio-blk-device,drive=d,iothread=io
}

bench_run() {
    run_pairs
    report seq_read_mib_s "sequential read, 1 MiB each" MiB/s 1 min 1
    report seq_write_mib_s "sequential write, 1 MiB each" MiB/s 1 min 1
    report rand_read_us "random read, 4 KiB each" us 1 -
    report rand_write_us "random write, 4 KiB each" us 1 -
}
