# shellcheck shell=bash disable=SC2154 # the variables are inside.sh's
# The units of a user, in that user's systemd.

# as_alice COMMAND...: as from a session of hers
as_alice() {
    as_user "$alice" env HOME=/home/alice XDG_RUNTIME_DIR="/run/user/$alice" "$@"
}

check_user_service() {
    local runtime=/run/user/$alice
    export XDG_RUNTIME_DIR=$runtime
    systemctl start "user@$alice.service" || fail "no systemd of alice's: $(systemctl status "user@$alice.service")"
    as_alice systemctl --user start gradientd.socket
    expect 'her socket' "$(stat -c '%F %u %a' "$runtime/gradientd/socket")" "socket $alice 600"
    train_as "$alice" training
    expect 'the directory of the event file' "${event_path%/*}" "/home/alice/.local/state/gradientd/$alice/training"
    go_to 100
    kill -KILL "$(as_alice systemctl --user show --property=MainPID --value "$service")"
    go_to 200
    finish
    expect_undisturbed
    expect 'the rights of the event file' "$(stat -c '%u %a' "$event_path")" "$alice 600"
    unset XDG_RUNTIME_DIR
    ok "a user's own service serves that user, and comes again where it is killed"
}
