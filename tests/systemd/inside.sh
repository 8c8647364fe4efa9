#!/usr/bin/env bash
# What tests/systemd/run checks, run as a unit of the booted systemd. /t is the directory it was given: packages/ are
# the Debian packages, steps the trainer, confined what tries the sandbox. Prints `ok: WHAT` for each check that passed
# and ends at the first that did not.
set -euo pipefail

service=gradientd.service
socket=/run/gradientd/socket
state=/var/lib/gradientd
configuration=/etc/gradientd/gradientd.conf
logdir=/srv/logs
drop_in=/run/systemd/system/$service.d/test.conf
alice=1500 # who trains
bob=1501   # who trains too
carol=1502 # who looks after the machine
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
    systemctl show --property="$1" --value "${2-$service}"
}

# as_user UID COMMAND...
as_user() {
    setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}"
}

# as_admin COMMAND...: as carol, who has been made a member of the admin group
as_admin() {
    setpriv --reuid="$carol" --regid="$carol" --groups="$(id -g gradientd)" "$@"
}

# eventually WHAT COMMAND...: COMMAND succeeds, at most 20 s from now
eventually() {
    local deadline=$((SECONDS + 20))
    while ! "${@:2}"; do
        ((SECONDS < deadline)) || fail "$1 does not come"
        sleep 0.01
    done
}

# has PROPERTY VALUE, differs PROPERTY VALUE: of the service
has() {
    [[ $(property "$1") == "$2" ]]
}

differs() {
    [[ $(property "$1") != "$2" ]]
}

# another_process PID: the service has one, and it is not that
another_process() {
    differs MainPID "$1" && differs MainPID 0
}

# expect_file PATH LAST_STEP: a whole event file with a norm at each step up to there
expect_file() {
    local dump
    dump=$(gradientctl dump "$1") || fail "$1 is damaged"
    expect "the count of norms in $1" "$(grep -c ',gradient/norm,' <<<"$dump")" "$2"
    expect "the last step of $1" "$(awk -F, '$3 == "gradient/norm" { step = $2 } END { print step }' <<<"$dump")" "$2"
}

# expect_undisturbed: the file of the run that has ended has the bytes of the one that nothing happened to
expect_undisturbed() {
    cmp "$event_path" "$undisturbed" || fail "$event_path is not what it would have been"
}

# Trainers that go on when they are told to: train_as UID RUN [LOGDIR] starts one (train: alice's), go_to has it submit
# up to a step, and finish ends it. One at a time.
train_as() {
    coproc trainer { exec setpriv --reuid="$1" --regid="$1" --clear-groups /t/steps "${@:2}" 2>"$messages"; }
    trainer_pid=$!
    event_path=
    read -r -u "${trainer[0]}" word event_path || true
    [[ ${word-} == event ]] || fail "the trainer says: $(cat "$messages")"
}

train() {
    train_as "$alice" "$@"
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

# change_service LINE...: a drop-in with these lines for the service, until unchange_service; neither starts it
change_service() {
    mkdir -p "${drop_in%/*}"
    printf '%s\n' "$@" >"$drop_in"
    systemctl daemon-reload
    systemctl stop "$service" 2>/dev/null # and says that the socket will start it again
}

unchange_service() {
    rm -r "${drop_in%/*}"
    systemctl daemon-reload
    systemctl stop "$service" 2>/dev/null
}

# shellcheck source=tests/systemd/inside_package.sh
source /t/inside_package.sh
# shellcheck source=tests/systemd/inside_service.sh
source /t/inside_service.sh
# shellcheck source=tests/systemd/inside_access.sh
source /t/inside_access.sh
# shellcheck source=tests/systemd/inside_gradientctl.sh
source /t/inside_gradientctl.sh
# shellcheck source=tests/systemd/inside_user.sh
source /t/inside_user.sh

make_users
keep_traces
check_install
check_units
check_socket
check_first_trainer
check_sandbox
check_state_directory
check_admin_group
check_metrics
check_admission
check_gradientctl
check_reload
check_stop
check_restart
check_kill
check_kills
check_watchdog
check_upgrade
check_user_service
check_removal
check_purge
