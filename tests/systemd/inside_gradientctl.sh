# shellcheck shell=bash disable=SC2154 # the variables are inside.sh's
# What gradientctl says of the service.

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
    as_admin gradientctl status watched >/dev/null || fail 'the admin group does not see the run'
    ok 'gradientctl status tells a user of its own run alone, and the admin group of all'

    text=$(as_user "$alice" gradientctl doctor) || fail "gradientctl doctor: $text"
    text=$(gradientctl doctor) || fail "gradientctl doctor: $text"
    expect_in 'doctor' "$text" 'gradientd.socket is enabled and active, gradientd.service active'
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
