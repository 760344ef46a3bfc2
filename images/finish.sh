# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
#
# The last step inside a root file system: images/build hands this text to
# mmdebstrap as a hook, so it also runs in a user namespace that may not read
# the source tree. $1 is the root; the results are left in $1/.microsbx.
# In: EROFS_OPTIONS, IMAGE_UUID, SOURCE_DATE_EPOCH (may be empty).
set -eu
root=$1
out=$root/.microsbx

# What is inside, for people and for security scanners. An unconfigured root
# (from nothing) has no dpkg database: there "prepare" made the list.
if [ -s "$root/var/lib/dpkg/status" ]; then
    dpkg-query --admindir="$root/var/lib/dpkg" -W \
        -f '${Package} ${Version} ${Architecture}\n' |
        LC_ALL=C sort >"$out/packages"
fi

# Written anew rather than inherited from the machine that builds.
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp"
chmod 1777 "$root/tmp"
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id"
: >"$root/etc/machine-id"
echo microsbx >"$root/etc/hostname"

# Traces of the moment and the place of the build are left out, not removed:
# mmdebstrap still wants some of them, and below dev, proc and sys may be
# mounts of the host's.
traces='^\.microsbx$|^(dev|proc|sys|run|tmp|var/(log|cache|lib/apt/lists))/.'
traces="$traces|^etc/(dpkg/dpkg.cfg.d|apt/apt.conf.d)/[0-9]*mmdebstrap\$"
traces="$traces|^etc/(passwd|group|shadow|gshadow)-\$|^var/lib/dpkg/.*-old\$"
traces="$traces|^var/lib/dbus/machine-id\$"
# Without a package database, apt has nothing to do in there either.
[ -s "$root/var/lib/dpkg/status" ] ||
    traces="$traces|^(etc/apt|var/cache|var/lib/(apt|dpkg)|usr/share/doc)\$"

# mkfs.erofs clamps every newer time to this one. Without a wish of the user
# it is the newest time that came out of a package.
: "${SOURCE_DATE_EPOCH:=$(cat "$out/epoch")}"
export SOURCE_DATE_EPOCH

# proc and sys are mounted while hooks run: they are packed as the plain
# folders below, in a mount namespace of its own. No extended attributes
# (-x-1): file capabilities are nothing a workload should gain by.
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --mount sh -euc '
    for folder in proc sys; do
        ! mountpoint -q "$1/$folder" || umount -l "$1/$folder"
        chmod 755 "$1/$folder"
    done
    touch -d "@$SOURCE_DATE_EPOCH" "$1/dev" "$1/proc" "$1/sys"
    mkfs.erofs --quiet -x-1 $EROFS_OPTIONS -U "$IMAGE_UUID" \
        --exclude-regex="$2" "$1/.microsbx/rootfs.erofs" "$1" >&2
' sh "$root" "$traces"
