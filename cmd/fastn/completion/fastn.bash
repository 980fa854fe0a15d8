# bash completion for fastn(1)                             -*- shell-script -*-

# COMP_WORDS is split at = and : too, which stand in flags and addresses, so
# the line is read as words again.
_fastn() {
    local line=${COMP_LINE:0:COMP_POINT} cur words candidates
    COMPREPLY=()
    read -r -a words <<<"$line"
    cur=
    [[ $line == *[![:space:]] ]] && cur=${words[-1]} && unset 'words[-1]'
    mapfile -t candidates < <("${words[0]}" __complete --no-help -- "${words[@]:1}" "$cur" 2>/dev/null)
    case ${candidates[0]-} in
    :file) mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}") && compopt -o filenames ;;
    :dir) mapfile -t COMPREPLY < <(compgen -d -- "${COMP_WORDS[COMP_CWORD]}") && compopt -o filenames ;;
    *) COMPREPLY=("${candidates[@]}") ;;
    esac
    # What is before a = or : on the line is not replaced by readline.
    local keep=${cur%"${COMP_WORDS[COMP_CWORD]}"}
    [[ ${COMP_WORDS[COMP_CWORD]} == = ]] && keep=$cur
    [[ -n $keep ]] && COMPREPLY=("${COMPREPLY[@]#"$keep"}")
    return 0
} && complete -F _fastn fastn
