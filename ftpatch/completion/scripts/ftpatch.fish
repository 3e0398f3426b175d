# Completion of ftpatch for fish. `ftpatch completion fish` prints it.
# The program itself says what may follow: a word a line, behind a tab what it means. fish shows it the line up to the
# cursor, so functions are those of a FILE in front of it.

function __ftpatch_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l program ftpatch
    if not command -q ftpatch
        set program (string replace -r '^~/' "$HOME/" -- $before[1])
        string match -qr '(^|/)ftpatch[^/]*$' -- $program; or return
    end
    $program completion fish --answer -- "$current" $before 2>/dev/null
end

complete -c ftpatch -f -a '(__ftpatch_complete)'
