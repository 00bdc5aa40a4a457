# What VS Code says to gdb, and what gdb answers (GDB/MI).
{
    echo -exec-run
    sleep 3
    echo '-stack-list-frames 0 5'
    echo -gdb-exit
} | gdb -q -nx --interpreter=mi2 ./app 2>&1 | sed -n '/running,thread-id/,$p'
