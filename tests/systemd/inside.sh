#!/usr/bin/env bash
# What tests/systemd/run checks, run as a unit of the booted systemd. /t is the directory it was given: root/ is what
# was installed, steps the trainer. Prints `ok: WHAT` for each check that passed and ends at the first that did not.
set -euo pipefail

service=gradientd.service
socket=/run/gradientd/socket
state=/var/lib/gradientd
logdir=/srv/logs
alice=1500 # who trains
bob=1501   # who does not
messages=/tmp/trainer.log

fail() {
    printf 'failed: %s\n' "$*"
    systemctl status --no-pager --lines=30 gradientd.socket "$service" || true
    exit 1
}

ok() {
    printf 'ok: %s\n' "$*"
}

# expect WHAT ACTUAL EXPECTED
expect() {
    [[ $2 == "$3" ]] || fail "$1 is '$2', not '$3'"
}

property() {
    systemctl show --property="$1" --value "$service"
}

as_user() {
    setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}"
}

# until_property PROPERTY VALUE: at most 10 s
until_property() {
    local tries
    for ((tries = 0; tries < 1000; tries++)); do
        [[ $(property "$1") != "$2" ]] || return 0
        sleep 0.01
    done
    fail "$1 stays '$(property "$1")', never '$2'"
}

# expect_file PATH LAST_STEP: a whole event file with a norm at each step up to there
expect_file() {
    local dump
    dump=$(gradientctl dump "$1") || fail "$1 is damaged"
    expect "the count of norms in $1" "$(grep -c ',gradient/norm,' <<<"$dump")" "$2"
    expect "the last step of $1" "$(awk -F, '$3 == "gradient/norm" { step = $2 } END { print step }' <<<"$dump")" "$2"
}

# Trainers of alice's that go on when they are told to: train starts one, go_to has it submit up to a step, and finish
# ends it. One at a time.
train() {
    coproc trainer { exec setpriv --reuid="$alice" --regid="$alice" --clear-groups /t/steps "$@" 2>"$messages"; }
    trainer_pid=$!
    event_path=
    read -r -u "${trainer[0]}" word event_path || true
    [[ ${word-} == event ]] || fail "the trainer says: $(cat "$messages")"
}

go_to() {
    local line
    echo "$1" >&"${trainer[1]}"
    read -r -u "${trainer[0]}" line || fail "the trainer ended before step $1: $(cat "$messages")"
    expect 'the trainer' "$line" "step $1"
}

finish() {
    local input=${trainer[1]}
    exec {input}>&-
    wait "$trainer_pid" || fail "the trainer of $event_path ends with status $?"
}

install_service() {
    cp -a /t/root/. /
    ldconfig
    systemd-sysusers
    systemctl daemon-reload
    systemd-analyze verify --man=no gradientd.socket "$service" >/tmp/verify 2>&1 || true
    [[ ! -s /tmp/verify ]] || fail "systemd-analyze verify: $(cat /tmp/verify)"
    install -d -o "$alice" -g "$alice" "$logdir"
    ok 'the units as installed are clean'
}

check_socket() {
    systemctl start gradientd.socket
    expect 'the socket' "$(stat -c '%F %a' "$socket")" 'socket 666'
    expect 'its directory' "$(stat -c %a "${socket%/*}")" 755
    expect 'the service' "$(property ActiveState)" inactive
    ok 'the socket is there before the service'
}

check_logdir() {
    train with-logdir "$logdir"
    expect 'the service' "$(property ActiveState) $(property Type)" 'active notify'
    expect 'the status' "$(property StatusText)" 'Serving 1 run'
    go_to 200
    finish
    expect_file "$event_path" 200
    expect 'the directory of the event file' "${event_path%/*}" "$logdir/with-logdir"
    expect 'the owner of the event file' "$(stat -c %u "$event_path")" "$alice"
    until_property StatusText 'Serving 0 runs'
    ok 'a connection starts the service, which writes into the logdir of another user'
}

check_confinement() {
    local status
    status=/proc/$(property MainPID)/status
    expect 'the user' "$(stat -c %U "$status")" gradientd
    expect 'the capabilities' "$(awk '/^Cap(Eff|Prm|Bnd)/ { print $2 }' "$status" | sort -u)" 0000000000000000
    expect 'the filter of system calls' "$(awk '/^Seccomp:/ { print $2 }' "$status")" 2
    expect 'no new privileges' "$(awk '/^NoNewPrivs/ { print $2 }' "$status")" 1
    ok 'the service has a user of its own and no rights'
}

check_state_directory() {
    train without-logdir
    go_to 200
    finish
    expect 'the directory of the event file' "${event_path%/*}" "$state/$alice/without-logdir"
    expect_file "$event_path" 200
    expect 'the folder of the user' "$(stat -c '%U %a' "$state/$alice")" 'gradientd 700'
    ! as_user "$bob" ls "$state/$alice" >/dev/null 2>&1 || fail "another user can look into $state/$alice"
    ok 'a run without a logdir lies in the state directory'
}

# expect_in WHAT TEXT PART
expect_in() {
    [[ $2 == *"$3"* ]] || fail "$1 has no '$3': $2"
}

check_gradientctl() {
    local text status=0
    train watched "$logdir"
    go_to 100
    text=$(as_user "$alice" gradientctl status watched) || fail "gradientctl status: $text"
    expect_in 'the status' "$text" '100, 100 snapshots, 0 skipped'
    expect_in 'the status' "$text" "pid $trainer_pid, user"
    ! as_user "$bob" gradientctl status watched >/dev/null 2>&1 || fail 'another user sees the run'
    ok 'gradientctl status tells a user of its own run alone'

    text=$(as_user "$alice" gradientctl doctor) || fail "gradientctl doctor: $text"
    text=$(gradientctl doctor) || fail "gradientctl doctor: $text"
    expect_in 'doctor' "$text" 'gradientd.socket is disabled and active, gradientd.service active'
    expect_in 'doctor' "$text" "gradientctl of $(gradientctl --version | cut -d' ' -f2)"
    expect_in 'doctor' "$text" 'libgradientd.so.'
    finish
    systemctl stop gradientd.socket "$service"
    text=$(gradientctl doctor) || status=$?
    expect 'the exit status of doctor without a socket' "$status" 1
    expect_in 'doctor' "$text" "no daemon at $socket (by default): there is no such file"
    expect_in 'doctor' "$text" 'systemctl enable --now gradientd.socket'
    systemctl start gradientd.socket
    ok 'gradientctl doctor asks systemd'
}

# The trainer lives, its file is complete up to the last step, and the service comes again with the next connection.
check_stop() {
    local pid
    train stopped "$logdir"
    go_to 300
    pid=$(property MainPID)
    systemctl stop "$service" 2>/dev/null # and says that the socket will start it again
    expect 'the service' "$(property ActiveState) $(property Result)" 'inactive success'
    expect_file "$event_path" 300
    kill -KILL "$trainer_pid"
    wait "$trainer_pid" 2>/dev/null || true
    ok 'stopping finishes what was submitted'

    train again "$logdir"
    go_to 50
    finish
    expect_file "$event_path" 50
    [[ $(property MainPID) != "$pid" ]] || fail 'the service was not stopped'
    ok 'the next connection starts it again'
}

check_restart() {
    local pid
    train restarted
    go_to 100
    pid=$(property MainPID)
    systemctl restart "$service"
    expect 'the service' "$(property ActiveState)" active
    [[ $(property MainPID) != "$pid" ]] || fail 'the service was not restarted'
    expect_file "$event_path" 100
    go_to 200
    finish
    expect_file "$event_path" 200
    ok 'a run goes on with the restarted service'
}

check_crash() {
    local pid
    pid=$(property MainPID)
    train crashed "$logdir"
    go_to 100
    kill -KILL "$pid"
    go_to 200
    finish
    expect_file "$event_path" 200
    [[ $(property MainPID) != "$pid" ]] || fail 'the service was not killed'
    ok 'a killed service comes again, and the run with it'
}

check_removal() {
    systemctl stop gradientd.socket "$service"
    [[ ! -e $socket ]] || fail "$socket is still there"
    ok 'a stopped socket leaves nothing behind'
}

install_service
check_socket
check_logdir
check_confinement
check_state_directory
check_gradientctl
check_stop
check_restart
check_crash
check_removal
