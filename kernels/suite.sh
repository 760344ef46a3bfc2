# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# kernels/suite.sh: Debian packages of another suite than this machine's own,
# fetched without touching its apt: the package lists and all that apt writes
# lie in a folder of the cache. For scripts to source, which define "die
# MESSAGE..." (that ends them) and "note MESSAGE..." (that does not).
#
# Packages come from where this machine gets its own Debian, or from the
# mirror that MICROSBX_MIRROR names.

suite_cache=${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/apt
suite_own_lists=/var/lib/apt/lists

# Where this machine gets Debian 12 from.
suite_mirror() {
    # shellcheck disable=SC2016 # expanded by apt-get
    echo "${MICROSBX_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Codename: bookworm' 2>/dev/null | head -n 1)}"
}

# Renew the lists in $1, those of suite $2, if apt's own were renewed since.
# One at a time: apt lets a second one fail.
suite_renew() {
    local root=$1 suite=$2

    exec {suite_lock}>"$root/lock"
    flock "$suite_lock"
    if [ ! "$root/updated" -nt $suite_own_lists ]; then
        if apt-get -qq "${suite_apt[@]}" -o APT::Update::Error-Mode=any \
            update >"$root/log" 2>&1; then
            : >"$root/updated"
        elif [ -e "$root/updated" ]; then
            note "the lists of $suite could not be renewed; going on with the" \
                "old ones"
        else
            cat "$root/log" >&2
            die "cannot fetch the package lists of $suite from" \
                "$(suite_mirror): is the network there, and the suite?"
        fi
    fi
    exec {suite_lock}>&-
}

# suite_use SUITE PRINT_ONLY: set the array suite_apt to options that make
# apt-get and apt-cache know the packages of SUITE and no others, whatever is
# installed or pinned here. With PRINT_ONLY 1 nothing is fetched.
suite_use() {
    local suite=$1 root=$suite_cache/$1 mirror

    mirror=$(suite_mirror)
    [ -n "$mirror" ] ||
        die "apt does not know where to get Debian's bookworm: run apt-get" \
            "update, or set MICROSBX_MIRROR"
    mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$mirror $suite main" >"$root/sources.$$"
    mv "$root/sources.$$" "$root/sources.list"
    suite_apt=(-o "Dir::Etc::sourcelist=$root/sources.list"
        -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null
        -o Dir::State::status=/dev/null
        -o "Dir::State::lists=$root/lists" -o "Dir::Cache=$root/cache"
        -o Acquire::Languages=none -o Acquire::Retries=1
        -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30
        -o APT::Sandbox::User=)
    [ "$2" = 1 ] || suite_renew "$root" "$suite"
}

# suite_version PACKAGE APT_OPTION...: the version apt would download; nothing
# if it knows none.
suite_version() {
    local package=$1

    shift
    apt-cache "$@" policy "$package" 2>/dev/null |
        awk '/Candidate:/ && $2 != "(none)" { print $2; exit }'
}

# suite_versions PACKAGES APT_OPTION...: the same for many at once (one word of
# names): a line each, the name and the version, for those that apt knows.
suite_versions() {
    local packages=$1

    shift
    # shellcheck disable=SC2086 # names, one word each
    apt-cache "$@" policy $packages 2>/dev/null |
        awk '/^[^ ]/ { name = $1; sub(/:$/, "", name) }
            /Candidate:/ && $2 != "(none)" { print name, $2 }'
}

# suite_unpack WORK OUT PACKAGES APT_OPTION...: download PACKAGES (one word of
# names) into the directory WORK and lay them out in OUT.
suite_unpack() {
    local work=$1 out=$2 packages=$3 deb

    shift 3
    # shellcheck disable=SC2086 # names, one word each
    (cd "$work" && apt-get -qq "$@" download $packages) >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "cannot download $packages: is the network there? if apt says" \
            "404, run apt-get update"
    }
    for deb in "$work"/*.deb; do
        dpkg-deb -x "$deb" "$out" || die "cannot unpack ${deb##*/}"
        rm "$deb"
    done
}

# suite_publish OUT DIR FILE: give OUT its name DIR. When another was first,
# theirs is as good as ours: FILE tells that DIR is whole.
suite_publish() {
    chmod 755 "$1"
    mv -T "$1" "$2" 2>/dev/null || [ -e "$2/$3" ] || die "cannot create $2"
}
