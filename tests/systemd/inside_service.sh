# shellcheck shell=bash disable=SC2154 # the variables are inside.sh's
# The service: how it starts, ends, comes again, and what runs notice of that.

check_units() {
    local units=(gradientd.socket "$service")
    systemd-analyze verify --man=no "${units[@]}" >/tmp/verify 2>&1 || true
    [[ ! -s /tmp/verify ]] || fail "systemd-analyze verify: $(cat /tmp/verify)"
    (cd /usr/lib/systemd/user && XDG_RUNTIME_DIR=/tmp systemd-analyze verify --user --man=no "${units[@]}") \
        >/tmp/verify 2>&1 || true
    [[ ! -s /tmp/verify ]] || fail "systemd-analyze verify --user: $(cat /tmp/verify)"
    systemd-analyze security --threshold=15 --no-pager "$service" >/tmp/security 2>&1 ||
        fail "systemd-analyze security: $(cat /tmp/security)"
    ok "the units are clean, and the exposure is $(grep -o 'level for.*: [0-9.]*' /tmp/security | grep -o '[0-9.]*$')"
}

check_socket() {
    expect 'the socket' "$(stat -c '%F %U %a' "$socket")" 'socket root 666'
    expect 'its directory' "$(stat -c '%U %a' "${socket%/*}")" 'root 755'
    expect 'the service' "$(property ActiveState)" inactive
    ok 'the socket is there before the service'
}

# Its event file is what all later runs of that name are compared with.
check_first_trainer() {
    train training "$logdir"
    # shellcheck disable=SC2034 # inside.sh's
    undisturbed=$event_path
    expect 'the service' "$(property ActiveState) $(property Type)" 'active notify'
    go_to 200
    eventually 'the status' has StatusText 'Serving 1 run, 200 steps'
    finish
    expect_file "$event_path" 200
    expect 'the directory of the event file' "${event_path%/*}" "$logdir/training"
    expect 'the owner of the event file' "$(stat -c %u "$event_path")" "$alice"
    ok 'a connection starts the service, which writes into the logdir of another user'
}

# The trainer lives, its file is complete up to the last step, and the service comes again with the next connection.
check_stop() {
    local pid
    train stopped "$logdir"
    go_to 300
    pid=$(property MainPID)
    systemctl stop "$service" 2>/dev/null
    expect 'the service' "$(property ActiveState) $(property Result)" 'inactive success'
    expect_file "$event_path" 300
    kill -KILL "$trainer_pid"
    wait "$trainer_pid" 2>/dev/null || true
    ok 'stopping finishes what was submitted'

    train again "$logdir"
    go_to 50
    finish
    expect_file "$event_path" 50
    another_process "$pid" || fail 'the service was not stopped'
    ok 'the next connection starts it again'
}

check_restart() {
    local pid
    train training
    go_to 100
    pid=$(property MainPID)
    systemctl restart "$service"
    expect 'the service' "$(property ActiveState)" active
    another_process "$pid" || fail 'the service was not restarted'
    expect_file "$event_path" 100
    go_to 200
    finish
    expect_undisturbed
    ok 'a run goes on with the restarted service'
}

check_kill() {
    local pid
    train training "$logdir"
    pid=$(property MainPID)
    go_to 100
    kill -KILL "$pid"
    go_to 200
    finish
    expect_undisturbed
    another_process "$pid" || fail 'the service was not killed'
    ok 'a killed service comes again, and the file of the run is what it would have been'
}

check_kills() {
    local pid kills=0
    train training
    while ((kills < 30)); do
        kills=$((kills + 1))
        pid=$(property MainPID)
        kill -KILL "$pid"
        go_to $((6 * kills))
        eventually 'the service' another_process "$pid"
    done
    go_to 200
    finish
    expect_undisturbed
    expect 'the service' "$(property ActiveState)" active
    expect 'the socket' "$(property ActiveState gradientd.socket)" active
    ok "$kills kills in a row hit no limit, and the file of the run is what it would have been"
}

# A process that is stopped neither feeds the watchdog nor takes its SIGABRT.
check_watchdog() {
    local pid stamp fed
    change_service '[Service]' WatchdogSec=2 TimeoutAbortSec=1
    train training
    go_to 100
    pid=$(property MainPID)
    for ((fed = 0; fed < 4; fed++)); do # half a WatchdogSec each
        stamp=$(property WatchdogTimestampMonotonic)
        eventually 'a word to the watchdog' differs WatchdogTimestampMonotonic "$stamp"
    done
    expect 'the process of a service that is well' "$(property MainPID)" "$pid"
    kill -STOP "$pid"
    eventually 'another process' another_process "$pid"
    go_to 200
    finish
    expect_undisturbed
    unchange_service
    ok 'the watchdog lets a service that is well be, and starts one again that is stopped'
}

# is_refused UID TEXT: another run of that user is, with that text; is_taken UID: it is not
is_refused() {
    ! as_user "$1" /t/steps another </dev/null >/dev/null 2>"$messages" && grep -qF "$2" "$messages"
}

is_taken() {
    as_user "$1" /t/steps another </dev/null >/dev/null 2>"$messages"
}

# What was said in the journal of the service's process
said() {
    journalctl -q -o cat "_PID=$(property MainPID)" | grep -qF "$1"
}

# A good configuration holds from then on, a wrong one is refused with its line, and the daemon keeps what it has.
check_reload() {
    local pid output
    train training
    go_to 100
    pid=$(property MainPID)
    printf '[limits]\nruns-per-user = 1\n' >"$configuration.d/test.conf"
    systemctl reload "$service" || fail 'a good configuration is not taken'
    eventually 'the new limit' is_refused "$alice" 'the limit is 1'

    printf '[limits]\nruns-per-user = many\n' >"$configuration.d/test.conf"
    ! systemctl reload "$service" 2>/dev/null || fail 'a wrong configuration is taken'
    output=$(journalctl -q -o cat -u "$service" -n 20)
    [[ $output == *"$configuration.d/test.conf:2: "*many* ]] || fail "a wrong configuration is told so: $output"
    is_refused "$alice" 'the limit is 1' || fail 'the limit is gone'
    kill -HUP "$pid"
    eventually 'a word on the wrong configuration' said "$configuration.d/test.conf:2: "
    is_refused "$alice" 'the limit is 1' || fail 'the limit is gone'

    rm "$configuration.d/test.conf"
    systemctl reload "$service" || fail 'a good configuration is not taken'
    eventually 'the end of the limit' is_taken "$alice"
    go_to 200
    finish
    expect_undisturbed
    expect 'the process' "$(property MainPID)" "$pid"
    ok 'a reload takes what is right, refuses what is wrong, and no run notices'
}

