#compdef fastn

# zsh completion for fastn(1)
_fastn() {
    local -a lines
    local line
    lines=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    case ${lines[1]} in
    :file) _files; return ;;
    :dir) _files -/; return ;;
    '') return 1 ;;
    esac
    local -a described
    for line in "${lines[@]}"; do
        if [[ $line == *$'\t'* ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            described+=("${line//:/\\:}")
        fi
    done
    _describe fastn described
}

if [[ $funcstack[1] == _fastn ]]; then
    _fastn "$@"
else
    compdef _fastn fastn
fi
