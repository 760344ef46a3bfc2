# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A host whose storage is slow or failing, from some moment on: strace attaches
# to a process and holds its calls back, or has them fail. Sourced behind
# lib.sh; whoever does looks with can_slow_down whether this host lets us.
#
# A call that is held back looks to the harness as one that waits for a disk:
# that is the point. It is held for longer than any test lasts, so that nobody
# can wait for it; let_go ends it.
HELD_MS=600000
tracer=''

can_slow_down() { strace -qq -o /dev/null true 2>"$work/strace"; }

# inject PID CALL[,CALL...] WHAT: from now on, in all its threads. False if the
# process has gone.
inject() {
    strace -f -o /dev/null -p "$1" -e trace="$2" -e inject="$2:$3" \
        2>"$work/strace" &
    tracer=$!
    until_true 60 is_attached && grep -q ' attached' "$work/strace"
}
is_attached() {
    grep -q ' attached' "$work/strace" || ! kill -0 "$tracer" 2>/dev/null
}

# hold PID CALL[,CALL...]: these calls do not come back.
hold() { inject "$1" "$2" "delay_enter=$((HELD_MS * 1000))"; }

# slow_down PID MS CALL[,CALL...]: these calls take so much longer.
slow_down() { inject "$1" "$3" "delay_enter=$(($2 * 1000))"; }

# fail PID ERROR CALL[,CALL...]: these calls fail.
fail() { inject "$1" "$3" "error=$2"; }

let_go() {
    [ -n "$tracer" ] || return 0
    kill -KILL "$tracer" 2>/dev/null
    wait "$tracer" 2>/dev/null
    tracer=''
}

# ended_soon NAME BEGAN: it has not waited for what was held.
ended_soon() {
    local took=$((SECONDS - $2))
    if [ $took -lt $((HELD_MS / 2000)) ]; then
        ok "$1"
    else
        not_ok "$1" "it took $took s"
    fi
}
