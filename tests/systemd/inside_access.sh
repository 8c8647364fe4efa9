# shellcheck shell=bash disable=SC2154 # the variables are inside.sh's
# What the service can reach, and who reaches what it keeps.

# The command after the start runs with all that confines the service.
check_sandbox() {
    local status
    train training "$logdir"
    change_service '[Service]' "ExecStartPost=/t/confined alice $trainer_pid" "StandardOutput=append:/t/confined.log"
    systemctl start "$service" || fail "what tries the sandbox: $(cat /t/confined.log)"
    cat /t/confined.log
    status=/proc/$(property MainPID)/status
    expect 'the user' "$(stat -c %U:%G "$status")" gradientd:gradientd
    expect 'the capabilities' "$(awk '/^Cap/ { print $2 }' "$status" | sort -u)" 0000000000000000
    expect 'the filter of system calls' "$(awk '/^Seccomp:/ { print $2 }' "$status")" 2
    expect 'no new privileges' "$(awk '/^NoNewPrivs/ { print $2 }' "$status")" 1
    ok 'the service has a user of its own, no capability and a filter of system calls'
    go_to 200
    finish
    expect_undisturbed
    unchange_service
}

# may UID COMMAND...: COMMAND succeeds as that user; may_not: it fails
may() {
    as_user "$@" >/dev/null 2>&1 || fail "$1 may not: ${*:2}"
}

may_not() {
    ! as_user "$@" >/dev/null 2>&1 || fail "$1 may: ${*:2}"
}

check_state_directory() {
    local hers his
    train training
    go_to 200
    finish
    expect_undisturbed
    hers=$event_path
    expect 'the directory of the event file' "${hers%/*}" "$state/$alice/training"
    train_as "$bob" training
    go_to 200
    finish
    expect_undisturbed
    his=$event_path
    expect 'the directory of the event file' "${his%/*}" "$state/$bob/training"
    may "$alice" gradientctl check "$hers"
    may "$bob" gradientctl check "$his"
    may_not "$alice" ls "$state/$bob"
    may_not "$bob" cat "$hers"
    may_not "$carol" cat "$hers"
    may_not "$alice" rm -f "$hers"
    may_not "$alice" mv "$hers" "$hers.old"
    may_not "$alice" touch "$state/$alice/training/mine"
    may_not "$alice" tee -a "$hers"
    ok "users' runs without a logdir lie in a folder each, which they alone read and nobody else writes"
}

check_admin_group() {
    local file
    for file in "$state"/{"$alice","$bob"}/training/events.*; do
        as_admin cat "$file" >/dev/null || fail "the admin group cannot read $file"
    done
    ok "the admin group reads all users' runs"
}

# The state directory is the one place where the service can write.
check_metrics() {
    local metrics=$state/metrics/gradientd.prom
    printf '[metrics]\nmetrics-file = %s\n' "$metrics" >"$configuration.d/test.conf"
    systemctl restart "$service"
    eventually 'the file of metrics' test -e "$metrics"
    may "$carol" grep -qx '# EOF' "$metrics"
    rm "$configuration.d/test.conf"
    systemctl stop "$service" 2>/dev/null
    ok 'metrics go to the state directory, for all to read'
}

check_admission() {
    printf '[access]\nallow-users = alice\n' >"$configuration.d/test.conf"
    systemctl reload-or-restart "$service" || fail 'the configuration is not taken'
    eventually 'his refusal' is_refused "$bob" 'allow-users'
    train training
    go_to 200
    finish
    expect_undisturbed
    rm "$configuration.d/test.conf"
    systemctl reload "$service" || fail 'the configuration is not taken'
    eventually 'the end of his refusal' is_taken "$bob"
    ok 'who is in no allow-list is refused, and a name in one is found from inside'
}
