# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
#
# The first step inside a root file system, after the packages are there and
# before the recipe's own copy and run lines: the few files the guest relies
# on. Runs like finish.sh; $1 is the root. In: BUILD_STARTED (seconds).
set -eu
root=$1
mkdir -p "$root/.microsbx" "$root/etc" "$root/root" "$root/usr/local/bin"

# The newest time that a package brought; what is newer was made just now. Not
# in etc and dev: some of that comes from the machine that builds.
for folder in usr bin sbin lib; do
    [ ! -d "$root/$folder" ] || find "$root/$folder" -xdev -type f \
        ! -newermt "@$BUILD_STARTED" -printf '%T@\n'
done | cut -d. -f1 | sort -n | tail -n 1 >"$root/.microsbx/epoch"

if [ ! -s "$root/var/lib/dpkg/status" ]; then
    for deb in "$root"/var/cache/apt/archives/*.deb; do
        [ -e "$deb" ] || continue
        # shellcheck disable=SC2016 # expanded by dpkg-deb
        dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}\n' \
            "$deb"
    done | LC_ALL=C sort >"$root/.microsbx/packages"
fi

# Without a shell of its own a root file system gets busybox's programs.
if [ ! -e "$root/bin/sh" ] && [ -x "$root/bin/busybox" ]; then
    mkdir -p "$root/sbin" "$root/usr/bin" "$root/usr/sbin"
    for program in $("$root/bin/busybox" --list-full); do
        [ -e "$root/$program" ] || ln -s /bin/busybox "$root/$program"
    done
fi

[ -e "$root/etc/passwd" ] ||
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
[ -e "$root/etc/group" ] || echo 'root:x:0:' >"$root/etc/group"
if ! grep -q '^sandbox:' "$root/etc/passwd"; then
    shell=/bin/sh
    [ ! -x "$root/bin/bash" ] || shell=/bin/bash
    echo "sandbox:x:1000:1000::/home/sandbox:$shell" >>"$root/etc/passwd"
    echo 'sandbox:x:1000:' >>"$root/etc/group"
    [ ! -e "$root/etc/shadow" ] ||
        echo 'sandbox:*:19700:0:99999:7:::' >>"$root/etc/shadow"
fi
mkdir -p "$root/home/sandbox"
chown 1000:1000 "$root/home/sandbox"
chmod 700 "$root/root"

# The last line is the agent's (guest/hosts.c), which then has nothing to do.
{
    printf '127.0.0.1\tlocalhost\n'
    printf '::1\tlocalhost ip6-localhost ip6-loopback\n'
    printf '127.0.1.1\tmicrosbx\n'
} >"$root/etc/hosts"
