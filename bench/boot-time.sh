# SPDX-License-Identifier: Apache-2.0
#
# Time from the exec of the monitor to the guest's first line from user space,
# and beside it what of that is spent after the first KVM_RUN, so that nobody
# mistakes a quick start of the program for a quick guest.

tracefs=/sys/kernel/tracing

bench_setup() {
    trace=()
    if [ ! -e $tracefs/events/kvm ]; then
        mount -t tracefs tracefs $tracefs 2>/dev/null || true
    fi
    if [ -w $tracefs/events/kvm/kvm_entry/enable ]; then
        trace=(-e $tracefs)
    else
        echo "bench/boot-time: no tracefs (are you root?): the first KVM_RUN" \
            "is not seen" >&2
    fi
}

# Debian's kernel brings modules in its initrd, and the agent is its init; with
# our own kernel the init is the measuring guest.
run_one() {
    local monitor=$1

    if [ "$kernel" = debian ]; then
        "watch_$monitor" debian debian-initrd microsbx.init_line=1 \
            "${trace[@]}" -u "microsbx: agent up" --
    else
        "watch_$monitor" minimal guest-initrd bench=idle \
            "${trace[@]}" -u "bench: ready" --
    fi | awk '{ print; v[$1] = $2 }
        END {
            if (v["entry_us"])
                print "guest_us", v["line_us"] - v["entry_us"]
        }'
}
run_ours() { run_one ours; }
run_qemu() { run_one qemu; }

bench_run() {
    for kernel in minimal debian; do
        run_pairs
        if [ $kernel = minimal ]; then
            limit=0.7
        else
            limit=0.9
        fi
        report line_us "$kernel kernel: first line" s 1e6 max $limit
        report entry_us "  of that before the first KVM_RUN" s 1e6 -
        report guest_us "  and after it" s 1e6 -
    done
}
