# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The recipe parser, read by images/build. A recipe is a text of such lines:
#
#   # comment
#   from debian|nothing    Debian's essential packages and tzdata, or nothing
#   packages NAME...       Debian packages, with what they depend on
#   copy SRC DST [OWNER]   a file or folder beside the recipe; DST/ is a folder;
#                          of root, or of OWNER: sandbox, root or UID[:GID]
#   run COMMAND            by /bin/sh as root in the image, without a network
#   env NAME=VALUE         for every command run in the guest
#   user NAME              who runs commands (sandbox, uid 1000)
#   workdir DIR            where (/home/sandbox)
#   kernel FLAVOUR         Debian's cloud (the default), generic or backports
#                          kernel: see kernels/debian
#   cmdline ARG...         further arguments for the kernel
#
# copy and run happen in the order written, after all packages are there.
# Only printable ASCII, no quoting: what follows the keyword is taken as is.
#
# recipe_parse FILE sets recipe_from, recipe_packages, recipe_actions (lines
# "run COMMAND" and "copy SRC DST UID:GID"), recipe_env, recipe_user,
# recipe_workdir, recipe_kernel and recipe_cmdline.
# It needs die() from its caller.

recipe_keywords='from packages copy run env user workdir kernel cmdline'

recipe_error() { # LINE MESSAGE...
    die "$recipe_file, line $1: ${*:2}"
}

recipe_set_from() { # LINE ARGUMENTS
    case $2 in
        debian | nothing) recipe_from=$2 ;;
        *) recipe_error "$1" "'from $2': it knows 'debian' and 'nothing'" ;;
    esac
}

recipe_add_packages() {
    local name
    for name in $2; do
        [[ $name =~ ^[a-z0-9][a-z0-9.+-]+$ ]] ||
            recipe_error "$1" "'$name' is not the name of a Debian package"
        recipe_packages+=("$name")
    done
}

# Numbers only: whose names there will be is not known before the image is.
recipe_owner() { # LINE OWNER: sets $owner to UID:GID
    local id
    case $2 in
        '' | root) owner=0:0 ;;
        sandbox) owner=1000:1000 ;;
        *)
            [[ $2 =~ ^([0-9]{1,5})(:([0-9]{1,5}))?$ ]] ||
                recipe_error "$1" "copy for '$2': an owner is root, sandbox" \
                    "or a number, UID or UID:GID"
            owner=$((10#${BASH_REMATCH[1]})):
            owner+=$((10#${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}))
            for id in ${owner/:/ }; do
                [ "$id" -lt 65535 ] ||
                    recipe_error "$1" "copy for '$2': at most 65534, please"
            done ;;
    esac
}

recipe_add_copy() {
    local src dst owner rest
    read -r src dst owner rest <<<"$2"
    recipe_owner "$1" "$owner"
    [ -n "$dst" ] && [ -z "$rest" ] ||
        recipe_error "$1" "copy needs a source and a destination, and may" \
            "have an owner"
    case /$src/ in
        //* | */../*) recipe_error "$1" "copy '$src': the source must lie" \
            "beside the recipe, without a leading / or .." ;;
    esac
    case $dst/ in
        */../*) recipe_error "$1" "copy to '$dst': no .. in it, please" ;;
        /*) ;;
        *) recipe_error "$1" "copy to '$dst': the destination must start" \
            "with a /" ;;
    esac
    [ -e "$recipe_dir/$src" ] ||
        recipe_error "$1" "copy '$src': there is no such file in $recipe_dir"
    recipe_actions+=("copy $src $dst $owner")
}

recipe_add_env() {
    [[ $2 =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] ||
        recipe_error "$1" "'env $2': write it as NAME=VALUE"
    recipe_env+=("$2")
}

recipe_set_user() {
    [[ $2 =~ ^[a-z_][a-z0-9_-]*$ ]] ||
        recipe_error "$1" "'user $2': that is not the name of a user"
    recipe_user=$2
}

recipe_set_kernel() {
    case $2 in
        cloud | generic | backports) recipe_kernel=$2 ;;
        *) recipe_error "$1" "'kernel $2': it knows cloud, generic and" \
            "backports" ;;
    esac
}

recipe_set_workdir() {
    [[ $2 == /* ]] ||
        recipe_error "$1" "'workdir $2': it must start with a /"
    recipe_workdir=$2
}

recipe_line() { # LINE TEXT
    local keyword arguments
    [[ $2 != *[![:print:]]* ]] ||
        recipe_error "$1" "there is a byte that is not printable ASCII"
    read -r keyword arguments <<<"$2"
    case $keyword in
        '' | '#'*) return 0 ;;
    esac
    [[ " $recipe_keywords " == *" $keyword "* ]] ||
        recipe_error "$1" "unknown keyword '$keyword'; it knows:" \
            "$recipe_keywords"
    [ -n "$arguments" ] || recipe_error "$1" "$keyword needs an argument"
    case $keyword in
        from) recipe_set_from "$1" "$arguments" ;;
        packages) recipe_add_packages "$1" "$arguments" ;;
        copy) recipe_add_copy "$1" "$arguments" ;;
        run) recipe_actions+=("run $arguments") ;;
        env) recipe_add_env "$1" "$arguments" ;;
        user) recipe_set_user "$1" "$arguments" ;;
        workdir) recipe_set_workdir "$1" "$arguments" ;;
        kernel) recipe_set_kernel "$1" "$arguments" ;;
        cmdline) recipe_cmdline+=" $arguments" ;;
    esac
}

recipe_parse() { # FILE
    local number=0 text LC_ALL=C
    recipe_file=$1 recipe_dir=${1%/*}
    recipe_from='' recipe_user=sandbox recipe_workdir=/home/sandbox
    recipe_kernel=cloud recipe_cmdline='' recipe_packages=()
    recipe_actions=() recipe_env=()
    while IFS= read -r text || [ -n "$text" ]; do
        number=$((number + 1))
        recipe_line $number "${text//$'\t'/ }"
    done <"$recipe_file"
    [ -n "$recipe_from" ] ||
        recipe_error 1 "'from debian' or 'from nothing' is missing"
    [ ${#recipe_packages[@]} -gt 0 ] ||
        recipe_error 1 "a 'packages' line is missing"
    # Not essential to Debian, but a program that is told TZ and does not find
    # it goes on in UTC without a word.
    [ "$recipe_from" = nothing ] || recipe_packages+=(tzdata)
}
