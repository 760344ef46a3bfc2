# SPDX-License-Identifier: Apache-2.0
#
# What every measurement here shares: the two monitors' command lines, pairs
# that take turns, and medians of their ratios. Sourced by bench/inside, which
# sets:
#
#   $top      the checkout            $dir      a scratch directory in memory
#   $pairs    how many pairs          $results  file of JSON lines
#   $host     native or emulated      $bench    name of the measurement

other=qemu # the side that ours is compared with

die() {
    echo "bench/$bench: $*" >&2
    exit 1
}

# --- The two monitors ----------------------------------------------------------

# Files both read, in memory, so that neither pays for a slow disk.
prepare_files() {
    local image=$MICROSBX_BENCH_IMAGE kernel=$MICROSBX_BENCH_KERNEL

    cp "$top"/build/microsbx "$top"/build/microsbx-vmm "$dir"
    cp "$top"/build/bench/{vm_watch,vsock_peer,guest-initrd} "$dir"
    cp "$kernel/vmlinux" "$dir/minimal"
    cp "$image/kernel" "$dir/debian"
    cp "$image/initrd" "$dir/debian-initrd"
    # Where microsbx remembers, as for any user, that this host is fit.
    export XDG_RUNTIME_DIR=$dir/run
    mkdir -m 700 "$XDG_RUNTIME_DIR"
}

# Words both get: a quiet console, for its speed is not the question; no tests
# of emulated clocks; no patching of thousands of lock prefixes for a single CPU,
# which takes longer than booting with them.
append="quiet no_timer_check tsc=reliable noreplace-smp"

# watch_ours KERNEL INITRD WORDS [WATCH OPTIONS] -- [MACHINE OPTIONS]
watch_ours() {
    local kernel=$1 initrd=$2 words=$3 watch=()

    shift 3
    while [ "$1" != -- ]; do watch+=("$1") && shift; done
    shift
    "$dir/vm_watch" "${watch[@]}" -- "$dir/microsbx" boot \
        --kernel "$dir/$kernel" --initrd "$dir/$initrd" -m 128M \
        --append "$append $words" "$@"
}

# The same for QEMU: its smallest machine, nothing in it that is not asked for,
# virtio 1 devices. An ELF kernel is found by its PVH note and told of devices
# on the command line; Debian's needs ACPI, and without a clock chip spends
# seconds looking for one. Without -xsave Linux complains at length in the
# emulated host, whose processor cannot set XCR0: it is as absent under our
# monitor.
watch_qemu() {
    local kernel=$1 initrd=$2 words=$3 watch=() machine=acpi=off,rtc=off cpu=host

    shift 3
    while [ "$1" != -- ]; do watch+=("$1") && shift; done
    shift
    [ "$kernel" = minimal ] || machine=acpi=on,rtc=on
    [ "$host" = native ] || cpu=host,-xsave
    "$dir/vm_watch" "${watch[@]}" -- qemu-system-x86_64 \
        -M microvm,$machine,pit=off,pic=off,ioapic2=off,isa-serial=on \
        -accel kvm -cpu $cpu -m 128M \
        -nodefaults -no-user-config -display none -no-reboot \
        -global virtio-mmio.force-legacy=false \
        -chardev stdio,id=console,signal=off -serial chardev:console \
        -kernel "$dir/$kernel" -initrd "$dir/$initrd" \
        -append "console=ttyS0 panic=-1 reboot=k $append $words" "$@"
}

# --- Pairs -----------------------------------------------------------------------

# Overwrites one line, if somebody sits at the terminal outside.
progress() {
    [ -z "${MICROSBX_BENCH_TTY-}" ] || printf '\r\033[K%s' "$1" >&2
}

# One side of one pair; its lines go to $dir/samples as "PAIR SIDE NAME VALUE".
run_side() {
    local pair=$1 side=$2

    "run_$side" >"$dir/lines" || return 1
    awk -v pair="$pair" -v side="$side" 'NF == 2 { print pair, side, $0 }' \
        "$dir/lines" >>"$dir/samples"
}

# Run the functions run_ours and run_$other in turns, who is first alternating.
# The first, uncounted round warms the caches of the host. A pair that fails is
# said and repeated, three times in all: one that fails more has a reason.
run_pairs() {
    local pair=0 failed=0 order

    : >"$dir/samples"
    while [ $pair -le "$pairs" ]; do
        order="ours $other"
        [ $((pair % 2)) = 0 ] || order="$other ours"
        progress "bench/$bench: pair $pair of $pairs"
        for side in $order; do
            run_side $pair "$side" && continue
            failed=$((failed + 1))
            [ $failed -le 3 ] || die "$side failed for the fourth time"
            echo "bench/$bench: $side failed, pair $pair is repeated" >&2
            sed -i "/^$pair /d" "$dir/samples"
            continue 2
        done
        pair=$((pair + 1))
    done
    progress ""
    sed -i '/^0 /d' "$dir/samples"
}

# report NAME LABEL UNIT SCALE DIRECTION LIMIT: one line of the table, one of
# JSON. SCALE divides the samples; DIRECTION is "max" if the ratio of ours to the
# other side may be at most LIMIT, "min" if at least, "-"
# if there is no limit.
report() {
    awk -v name="$1" -v label="$2" -v unit="$3" -v scale="$4" \
        -v direction="$5" -v limit="${6-}" -v bench="$bench" -v host="$host" \
        -v results="$results" -v other="$other" '
    function sort(a, n,   i, j, t) {
        for (i = 2; i <= n; i++) {
            t = a[i]
            for (j = i - 1; j > 0 && a[j] > t; j--)
                a[j + 1] = a[j]
            a[j + 1] = t
        }
    }
    function figure(x) {
        return x >= 1000 ? sprintf("%.0f", x) : sprintf("%.4g", x)
    }
    function median(a, n) {
        return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
    }
    $3 == name { value[$1, $2] = $4; seen[$1] = 1 }
    END {
        for (pair in seen) {
            if (!((pair, "ours") in value) || !((pair, other) in value) ||
                value[pair, other] == 0)
                continue
            n++
            ours[n] = value[pair, "ours"] / scale
            theirs[n] = value[pair, other] / scale
            ratio[n] = ours[n] / theirs[n]
        }
        if (!n) {
            printf "%-34s not measured\n", label
            exit
        }
        sort(ours, n); sort(theirs, n); sort(ratio, n)
        mid = median(ratio, n)
        met = direction == "-" ? "" : \
              (direction == "max" ? mid <= limit + 0 : mid >= limit + 0) ? \
              "met" : "MISSED"
        bound = direction == "-" ? "" : \
                (direction == "max" ? "<= " : ">= ") limit
        range = sprintf("%.2f (%.2f..%.2f)", mid, ratio[1], ratio[n])
        printf "%-34s %9s %9s %-5s  %-18s %-7s %s\n", label,
               figure(median(ours, n)), figure(median(theirs, n)), unit, range,
               bound, met
        printf "{\"bench\":\"%s\",\"name\":\"%s\",\"label\":\"%s\"," \
               "\"host\":\"%s\",\"unit\":\"%s\",\"pairs\":%d,\"ours\":%.6g," \
               "\"%s\":%.6g,\"ratio\":%.4f,\"ratio_min\":%.4f," \
               "\"ratio_max\":%.4f,\"limit\":\"%s\",\"met\":%s}\n",
               bench, name, label, host, unit, n, median(ours, n), other,
               median(theirs, n), mid, ratio[1], ratio[n], bound,
               met == "" ? "null" : met == "met" ? "true" : "false" >> results
    }' "$dir/samples"
}

# report_one LABEL VALUE UNIT [LIMIT [QEMU]]: a figure with a limit of its own,
# not of its ratio; QEMU's, if given, stands beside it for scale.
report_one() {
    awk -v label="$1" -v value="$2" -v unit="$3" -v limit="${4-}" \
        -v qemu="${5-}" \
        -v bench="$bench" -v host="$host" -v results="$results" '
    function figure(x) {
        return x == "" ? "" : \
               x + 0 >= 1000 ? sprintf("%.0f", x) : sprintf("%.4g", x)
    }
    BEGIN {
        met = limit == "" ? "" : value + 0 <= limit + 0 ? "met" : "MISSED"
        bound = limit == "" ? "" : "<= " limit
        printf "%-34s %9s %9s %-5s  %-18s %-7s %s\n", label, figure(value),
               figure(qemu), unit, "", bound, met
        printf "{\"bench\":\"%s\",\"label\":\"%s\",\"host\":\"%s\"," \
               "\"unit\":\"%s\",\"ours\":%.6g,\"qemu\":%s,\"limit\":\"%s\"," \
               "\"met\":%s}\n", bench, label, host, unit, value,
               qemu == "" ? "null" : qemu, bound,
               met == "" ? "null" : met == "met" ? "true" : "false" >> results
    }' </dev/null
}

# sample SIDE NAME: what the last pair gave.
sample() {
    awk -v side="$1" -v name="$2" \
        '$2 == side && $3 == name { value = $4 } END { print value }' \
        "$dir/samples"
}

# Lines "name value" on stdin: the value of one.
value_of() {
    awk -v name="$1" '$1 == name { print $2 }'
}

# --- Looking at a process -----------------------------------------------------

# The first child of a process.
child_of() {
    awk '{ print $1 }' "/proc/$1/task/$1/children"
}

# Private KiB of a process, guest memory (mappings of 64 MiB and more) left out.
private_kib() {
    awk '/^Size:/ { size = $2 }
        /^Private_(Clean|Dirty):/ && size < 65536 { sum += $2 }
        END { print sum + 0 }' "/proc/$1/smaps"
}
