# bash completion of gradientd: options as --help has them.
# shellcheck shell=bash

_gradientd() {
    local program=$1 current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words
    COMPREPLY=()
    case $previous in
    --*-users)
        mapfile -t COMPREPLY < <(compgen -u -- "$current")
        return
        ;;
    --*-group | --*-groups)
        mapfile -t COMPREPLY < <(compgen -g -- "$current")
        return
        ;;
    esac
    if [[ $current == -* ]]; then
        words=$("$program" --help 2>/dev/null | grep -oE '^  --[a-z-]+')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    else
        compopt -o default 2>/dev/null
    fi
}

complete -F _gradientd gradientd
