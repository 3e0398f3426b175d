#compdef ftpatch
# Completion of ftpatch for zsh. `ftpatch completion zsh` prints it.
# The program itself says what may follow; the first line of its answer says how the word is cut.

_ftpatch() {
    local program=ftpatch line value rest
    local -a answer head words_alone words_on described described_on folders
    if (( ! $+commands[ftpatch] )); then
        program=${(Q)words[1]/#\~\//$HOME/}
        [[ ${program:t} == ftpatch* ]] || return 1
    fi
    answer=("${(@f)$("$program" completion zsh --answer -- "$CURRENT" "$compstate[quote]" "${(Q)PREFIX}" "${(@Q)words}" 2>/dev/null)}")
    head=("${(@ps:\t:)answer[1]}")
    for line in "${(@)answer[2,-1]}"; do
        value=${line%%$'\t'*} rest=${line#*$'\t'}
        if [[ $head[1] == files ]]; then
            if [[ $rest == +* ]]; then folders+=("$value"); else words_alone+=("$value"); fi
        elif [[ $rest == $'\t' ]]; then
            words_alone+=("$value")
        elif [[ $rest == $'+\t' ]]; then
            words_on+=("$value")
        else
            value=${value//\\/\\\\}
            value=${value//:/\\:}:${rest#*$'\t'}
            if [[ $rest == +* ]]; then described_on+=("$value"); else described+=("$value"); fi
        fi
    done
    [[ -n $head[2] ]] && compset -P "$head[2]"
    if [[ $head[1] == files ]]; then
        local -a where
        [[ -n $head[3] ]] && where=(-W "$head[3]")
        (( $#folders )) && compadd -f $where -q -S / -a folders
        (( $#words_alone )) && compadd -f $where -a words_alone
    else
        (( $#described )) && _describe -t values value described
        (( $#described_on )) && _describe -t values value described_on -S ''
        (( $#words_alone )) && compadd -a words_alone
        (( $#words_on )) && compadd -S '' -a words_on
    fi
    (( $#folders + $#words_alone + $#words_on + $#described + $#described_on ))
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _ftpatch "$@"
elif (( $+functions[compdef] )); then
    compdef _ftpatch ftpatch
else
    print -u2 'ftpatch: completion needs compinit, which has to run first: autoload -U compinit; compinit'
fi
