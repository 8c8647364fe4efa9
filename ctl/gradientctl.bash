# bash completion of gradientctl: commands and options as --help has them, names of runs as the daemon has them.
# shellcheck shell=bash

# Prints the names of the runs that a daemon tells of, the one that was given with --socket if any. A daemon that does
# not answer costs half a second.
_gradientctl_runs() {
    local i socket=()
    for ((i = 2; i < COMP_CWORD - 1; i++)); do
        [[ ${COMP_WORDS[i]} != --socket ]] || socket=(--socket "${COMP_WORDS[i + 1]}")
    done
    "$1" status --json --timeout 0.5 "${socket[@]}" 2>/dev/null | grep -oE '"run":"[A-Za-z0-9._=,+/-]*"' |
        sed -e 's/^"run":"//' -e 's/"$//' -e 's/^$/./'
}

_gradientctl() {
    local program=$1 current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]-}
    local usage words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words="--help --version $("$program" --help 2>/dev/null | sed -nE 's/^  ([a-z]+) .*/\1/p')"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    [[ $command =~ ^[a-z]+$ ]] || return
    usage=$("$program" --help 2>/dev/null | sed -n "s/^  $command //p")
    case $previous in
    --timeout | --interval | --count)
        return
        ;;
    --socket)
        compopt -o default 2>/dev/null
        return
        ;;
    esac
    if [[ $current == -* ]]; then
        words="--help $(grep -oE -- '--[a-z-]+' <<<"$usage")"
    elif [[ $usage == *'[RUN]'* ]]; then
        words=$(_gradientctl_runs "$program")
    elif [[ $usage == *FILE* ]]; then
        compopt -o default 2>/dev/null
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _gradientctl gradientctl
