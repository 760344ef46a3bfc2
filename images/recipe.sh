# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The recipe parser, read by images/build. A recipe is a text of such lines:
#
#   # comment
#   from debian|nothing    Debian's essential packages, or not even these
#   packages NAME...       Debian packages, with what they depend on
#   copy SRC DST           a file or folder beside the recipe; DST/ is a folder
#   run COMMAND            by /bin/sh as root in the image, without a network
#   env NAME=VALUE         for every command run in the guest
#   user NAME              who runs commands (sandbox, uid 1000)
#   workdir DIR            where (/home/sandbox)
#   cmdline ARG...         further arguments for the kernel
#
# copy and run happen in the order written, after all packages are there.
# Only printable ASCII, no quoting: what follows the keyword is taken as is.
#
# recipe_parse FILE sets recipe_from, recipe_packages, recipe_actions (copy and
# run lines), recipe_env, recipe_user, recipe_workdir and recipe_cmdline.
# It needs die() from its caller.

recipe_keywords='from packages copy run env user workdir cmdline'

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

recipe_add_copy() {
    local src dst rest
    read -r src dst rest <<<"$2"
    [ -n "$dst" ] && [ -z "$rest" ] ||
        recipe_error "$1" "copy needs a source and a destination"
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
    recipe_actions+=("copy $src $dst")
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
        cmdline) recipe_cmdline+=" $arguments" ;;
    esac
}

recipe_parse() { # FILE
    local number=0 text LC_ALL=C
    recipe_file=$1 recipe_dir=${1%/*}
    recipe_from='' recipe_user=sandbox recipe_workdir=/home/sandbox
    recipe_cmdline='' recipe_packages=() recipe_actions=() recipe_env=()
    while IFS= read -r text || [ -n "$text" ]; do
        number=$((number + 1))
        recipe_line $number "${text//$'\t'/ }"
    done <"$recipe_file"
    [ -n "$recipe_from" ] ||
        recipe_error 1 "'from debian' or 'from nothing' is missing"
    [ ${#recipe_packages[@]} -gt 0 ] ||
        recipe_error 1 "a 'packages' line is missing"
}
