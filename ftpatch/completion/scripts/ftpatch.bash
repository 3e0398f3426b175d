# Completion of ftpatch for bash (4.4 or newer). `ftpatch completion bash` prints it.
# The program itself says what may follow, for this line and cursor; bash's own words are cut at `=`, `:` and `@`.

_ftpatch() {
    local program=ftpatch option IFS=$' \t\n'
    local -a reply
    COMPREPLY=()
    if ! type -P ftpatch >/dev/null; then
        program=${1/#\~\//$HOME/}
        [[ ${program##*/} == ftpatch* ]] || return 0
    fi
    mapfile -t reply < <("$program" completion bash --answer -- "$COMP_LINE" "$COMP_POINT" "$COMP_WORDBREAKS" 2>/dev/null)
    for option in ${reply[0]-}; do
        compopt -o "$option" 2>/dev/null
    done
    COMPREPLY=("${reply[@]:1}")
}

complete -F _ftpatch ftpatch
