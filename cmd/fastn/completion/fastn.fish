# fish completion for fastn(1)

function __fastn_complete
    set -l tokens (commandline -opc)
    set -l lines ($tokens[1] __complete -- $tokens[2..-1] (commandline -ct) 2>/dev/null)
    switch "$lines[1]"
        case :file
            __fish_complete_path (commandline -ct)
        case :dir
            __fish_complete_directories (commandline -ct)
        case '*'
            printf '%s\n' $lines
    end
end

complete -c fastn -f -a '(__fastn_complete)'
