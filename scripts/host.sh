# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# scripts/host.sh: kernel and initrd of an emulated host, made once and kept in
# the cache, and what else scripts/kvmhost and scripts/vmxhost do alike. For
# these to source; they define "die MESSAGE..." and
#
#   me         the script's name, for messages
#   here, top  the folder of scripts, and the project's
#   cache      the folder of its hosts
#   modules    what the host needs beyond its kernel
#   recipe     files that a host is made of; the first is its first process
#
# and, if a host is more than vmlinux and initrd, a function finish_host that
# makes the rest of them, in the directory named.  It leaves the initrd, which
# tells that a host is whole.

# need_tool NAME [GROUP]
need_tool() {
    command -v "$1" >/dev/null ||
        die "$1 is not installed: run scripts/deps ${2:-emulate}"
}

# Whatever goes into the host besides the kernel package.
recipe_id() {
    {
        echo "$modules"
        cat "${recipe[@]}"
    } | sha256sum | cut -c1-16
}

# Write the little-endian number of SIZE bytes at OFFSET of FILE.
number_at() {
    od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# Unpack the ELF kernel that a bzImage carries (its header says where, see the
# Linux x86 boot protocol): emulated, decompressing itself takes the kernel
# two seconds of every start under QEMU, and most of a minute under Bochs.
extract_vmlinux() {
    local image=$1 output=$2 setup_sectors payload length size

    setup_sectors=$(number_at "$image" $((0x1f1)) 1)
    payload=$(number_at "$image" $((0x248)) 4)
    length=$(number_at "$image" $((0x24c)) 4)
    # The payload's last word is not xz's, but the unpacked size: the check
    # that it worked.
    payload=$(((setup_sectors + 1) * 512 + payload))
    size=$(number_at "$image" $((payload + length - 4)) 4)
    dd if="$image" status=none bs=1M iflag=skip_bytes,count_bytes \
        skip=$payload count=$((length - 4)) | xz -dc >"$output" ||
        die "cannot unpack $image: is it compressed by something but xz?"
    [ "$(stat -c %s "$output")" = "$size" ] ||
        die "unpacking $image gave the wrong size"
}

# Not compressed: reading a few megabytes more costs nothing, unpacking them
# under emulation does.
pack_directory() {
    (cd "$1" && find . | cpio -o -H newc --quiet) >"$2"
}

# The modules and all they depend on, in loading order.
pack_initrd() {
    local kernel=$1 output=$2 release module file

    release=$(cat "$kernel/release")
    mkdir -p "$work/initrd"/{bin,proc,sys,dev,modules,lower,over,root}
    cp "$(command -v busybox)" "$work/initrd/bin/busybox"
    cp "${recipe[0]}" "$work/initrd/init"
    chmod 755 "$work/initrd/init"
    for module in $modules; do
        modprobe -d "$kernel" -S "$release" --show-depends "$module" ||
            die "the kernel $release has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r file; do
            cp "$file" "$work/initrd/modules"
            echo "${file##*/}" >>"$work/initrd/modules/order"
        done
    pack_directory "$work/initrd" "$output"
}

# Build $cache/NAME in a directory of its own; one rename publishes it, so two
# at once cannot disturb each other.
build_host() {
    local name=$1 kernel

    echo "$me: preparing the emulated host (once)" >&2
    need_tool cpio
    need_tool modprobe
    need_tool xz
    need_tool busybox
    ! ldd "$(command -v busybox)" >/dev/null 2>&1 ||
        die "busybox is not static: run scripts/deps emulate"
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.work.XXXXXX")
    mkdir "$work/out"
    # The unpacked package is large and needed only now: if it is not in the
    # cache anyway, it goes the way of the work directory.
    kernel=$("$top/kernels/debian" --print generic 2>/dev/null) ||
        kernel=$(XDG_CACHE_HOME=$work "$top/kernels/debian" generic) ||
        die "no kernel for the emulated host"
    extract_vmlinux "$kernel/vmlinuz" "$work/out/vmlinux"
    pack_initrd "$kernel" "$work/out/initrd"
    ! declare -F finish_host >/dev/null || finish_host "$work/out"
    chmod 755 "$work/out"
    mv -T "$work/out" "$cache/$name" 2>/dev/null ||
        [ -e "$cache/$name/initrd" ] || die "cannot create $cache/$name"
    rm -rf "$work"
    work=
}

# Set $host to the directory with vmlinux and initrd.  Asking apt for the
# kernel's version takes half a second: only if its lists are newer than the
# answer of last time, which is a link beside the directories.
find_host() {
    local recipe_id latest name

    recipe_id=$(recipe_id)
    latest=$cache/latest-$recipe_id
    if [ -e "$latest/initrd" ] && [ "$latest" -nt /var/lib/apt/lists ]; then
        host=$latest
        return
    fi
    name=$(apt-cache policy linux-image-amd64 2>/dev/null |
        awk '/Candidate:/ { print $2 }')
    if [ -z "$name" ]; then
        [ -e "$latest/initrd" ] ||
            die "apt knows no linux-image-amd64: run scripts/deps emulate"
        host=$latest
        return
    fi
    name=$name-$recipe_id
    [ -e "$cache/$name/initrd" ] || build_host "$name"
    touch "$cache/$name"
    ln -sfn "$name" "$latest.$$"
    mv -T "$latest.$$" "$latest"
    host=$latest
}

# Export statements for what the command is to find in its environment; the
# arguments are more of them.
print_environment() {
    local name

    echo "export KVMHOST=1 $*"
    for name in HOME PATH XDG_CACHE_HOME "${!MICROSBX_@}" \
        ${KVMHOST_ENV:-}; do
        [ -z "${!name+set}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done
}

# Set $status when it arrives on descriptor 3.  Otherwise set $reason: the time
# $timeout is over (0: never), or the emulator is gone.  Looks once a second
# whether the readers of our output, $copiers, are still there.
await_status() {
    local deadline=$((SECONDS + timeout)) pid ret line='' part

    while [ "$timeout" = 0 ] || [ $SECONDS -lt $deadline ]; do
        ret=0
        # When its time is over, read may have taken half of the line.
        read -r -t 1 part <&3 || ret=$?
        line+=$part
        if [ $ret = 0 ]; then
            status=${line%$'\r'}
            return
        fi
        if [ $ret -le 128 ]; then
            reason="it ended without a status"
            return
        fi
        for pid in $copiers; do
            kill -0 "$pid" 2>/dev/null || wait "$pid" || exit 141
        done
    done
    reason="no end after $timeout seconds"
}

# The value of an option that takes a number from 1 to MAX.
number() {
    [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] && [ "$2" -le "$3" ] ||
        die "$1 takes a number from 1 to $3, not '$2'"
    printf '%s' "$2"
}
