# SPDX-License-Identifier: Apache-2.0
#
# Time from the exec of the program to the first answer of the guest's agent:
# restored from a snapshot beside booted, with the same image and our minimal
# kernel; and, with Debian's kernel, restored by us beside restored by QEMU
# (q35, -incoming). QEMU's guest is the same but for what q35 asks for: the PCI
# transport's modules are added to the initrd. Each looks for the answer over
# vsock. Then the size of the snapshot's memory beside what the guest uses.

memory=256M
cid=4242
agent_port=1021

bench_setup() {
    modules=$(kernels/debian --print cloud 2>/dev/null) ||
        skip_reason="Debian's kernel is not here: run kernels/debian"
    [ -w /dev/vhost-vsock ] || skip_reason="no /dev/vhost-vsock"
    [ -z "$skip_reason" ] || return 0
    make_snapshot minimal --kernel "$dir/minimal"
    make_snapshot debian
    make_q35_initrd
    make_q35_scratch
    save_qemu
}

# make_snapshot NAME [MACHINE OPTION...]
make_snapshot() {
    local name=$1

    shift
    "$dir/microsbx" snapshot create --image "$MICROSBX_BENCH_IMAGE" \
        -m $memory "$@" -o "$dir/snapshot-$name" >&2 ||
        die "snapshot create failed"
}

# --- QEMU ------------------------------------------------------------------------

# The image's initrd, and behind it one that brings virtio over PCI.
make_q35_initrd() {
    local root=$dir/q35-root release name

    release=$(cat "$modules/release")
    mkdir -p "$root/modules/$release"
    for name in virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci; do
        cp "$modules/lib/modules/$release/kernel/drivers/virtio/$name.ko" \
            "$root/modules/$release"
    done
    (cd "$dir" && cpio -i --to-stdout --quiet "*modules/$release/order" \
        <"$dir/debian-initrd") |
        awk '{ print } $1 == "virtio.ko" {
            print "virtio_pci_legacy_dev.ko"
            print "virtio_pci_modern_dev.ko"
            print "virtio_pci.ko" }' >"$root/modules/$release/order"
    cp "$dir/debian-initrd" "$dir/q35-initrd"
    (cd "$root" && find . | cpio -o -H newc --quiet) >>"$dir/q35-initrd"
}

# A scratch disk of its own: the image's, which is one hole but for its start.
make_q35_scratch() {
    local scratch=$MICROSBX_BENCH_IMAGE/scratch.ext4 data

    data=$(sed -n 's/.*"scratch".*"data": *\([0-9]*\).*/\1/p' \
        "$MICROSBX_BENCH_IMAGE/image.json")
    dd if="$scratch" of="$dir/q35-scratch" bs=64K conv=sparse status=none \
        iflag=count_bytes count="$data"
    truncate -r "$scratch" "$dir/q35-scratch"
}

# watch_q35 [WATCH OPTION...] -- [QEMU OPTION...]: until its agent answers.
watch_q35() {
    local watch=() cpu=host

    while [ "$1" != -- ]; do watch+=("$1") && shift; done
    shift
    [ "$host" = native ] || cpu=host,-xsave
    "$dir/vm_watch" -t 60 -v $cid:$agent_port -u "bench: answered" \
        "${watch[@]}" -- qemu-system-x86_64 -M q35 -accel kvm -cpu $cpu \
        -m $memory -nodefaults -no-user-config -display none -no-reboot \
        -chardev stdio,id=console,signal=off -serial chardev:console \
        -drive "id=root,file=$MICROSBX_BENCH_IMAGE/rootfs.erofs,format=raw,if=none,readonly=on" \
        -device virtio-blk-pci,drive=root,serial=root \
        -drive "id=scratch,file=$dir/q35-scratch,format=raw,if=none" \
        -device virtio-blk-pci,drive=scratch,serial=scratch \
        -device vhost-vsock-pci,guest-cid=$cid -device virtio-rng-pci \
        -kernel "$dir/debian" -initrd "$dir/q35-initrd" \
        -append "console=ttyS0 panic=-1 $append" "$@"
}

# Called while the guest runs: writes all of it to a file. (Not stopped before:
# it would wait, restored, to be told to go on.)
migrate_to_file() {
    python3 - "$dir/qmp" "exec:cat >$dir/q35-state" <<'END'
import json, socket, sys, time
qmp = socket.socket(socket.AF_UNIX)
qmp.connect(sys.argv[1])
lines = qmp.makefile("rw")
def ask(execute, **arguments):
    lines.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            sys.exit(answer["error"]["desc"])
lines.readline()
ask("qmp_capabilities")
ask("migrate", uri=sys.argv[2])
while True:
    status = ask("query-migrate").get("status")
    if status == "completed":
        break
    if status == "failed":
        sys.exit("the migration failed")
    time.sleep(0.2)
END
}

save_qemu() {
    watch_q35 -x "$top/bench/inside call migrate_to_file" -- \
        -qmp "unix:$dir/qmp,server=on,wait=off" >/dev/null ||
        die "QEMU's guest could not be saved"
}

# --- The three sides -----------------------------------------------------------

# watch_run EVENT OPTION...: until the trial has seen that of its agent.
watch_run() {
    local event=$1

    shift
    "$dir/vm_watch" -t 300 -u "\"event\": \"$event\"" -- "$dir/microsbx" \
        run --events /proc/self/fd/1 --stdout none --stderr none "$@" -- true
}

# Not its first word, but the acknowledgement that it is another machine now:
# only then may a workload start.
run_ours() { watch_run restored --snapshot "$dir/snapshot-$kernel"; }

run_boot() {
    watch_run ready --image "$MICROSBX_BENCH_IMAGE" --kernel "$dir/minimal" \
        -m $memory
}

run_qemu() { watch_q35 -- -incoming fd:9 9<"$dir/q35-state"; }

# What the guest used when it was frozen, as it said then, and the file's blocks.
report_size() {
    local used

    used=$("$dir/microsbx" snapshot inspect --json "$dir/snapshot-$kernel" |
        sed -n 's/.*"memory":{[^}]*"used":\([0-9]*\).*/\1/p')
    report_one "memory file, guest used $((used / 1024)) KiB" \
        $(($(stat -c %b "$dir/snapshot-$kernel/memory") / 2)) KiB \
        $((used * 11 / 10 / 1024))
}

bench_run() {
    kernel=minimal other=boot
    run_pairs
    report line_us "restored, beside booted" s 1e6 max 0.2
    report_size
    kernel=debian other=qemu
    run_pairs
    report line_us "restored, beside QEMU's -incoming" s 1e6 max 0.333
    report_size
}
