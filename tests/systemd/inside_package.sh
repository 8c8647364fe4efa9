# shellcheck shell=bash disable=SC2154 # the variables are inside.sh's
# The package's life: what installing, upgrading, removing and purging it do to the machine and to runs.

traces=/tmp/traces

make_users() {
    useradd --uid "$alice" --user-group --create-home alice
    useradd --uid "$bob" --user-group --create-home bob
    useradd --uid "$carol" --user-group --create-home carol
    install -d -o "$alice" -g "$alice" "$logdir"
}

# All that a package could leave behind, but what dpkg, systemd and the shadow tools keep for themselves.
list_files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /t -o -path /srv -o -path /home -o \
        -path /root -o -path /work -o -path /var/log -o -path /var/cache -o -path /var/tmp \) -prune -o \
        ! -path '/var/lib/dpkg/*-old' ! -path '/etc/*-' ! -path '/var/lib/systemd/timers*' -print
    find /run/gradientd /run/systemd/system 2>/dev/null || true
}

keep_traces() {
    rm -rf "$state" /etc/gradientd # of daemons that ran on the machine below
    mkdir -p "$traces" /var/lib/systemd/linger # and that is logind's
    list_files | sort >"$traces/files"
    cp /etc/passwd /etc/group "$traces"
}

check_install() {
    dpkg -i /t/packages/*.deb >/tmp/dpkg 2>&1 || fail "dpkg -i: $(cat /tmp/dpkg)"
    expect 'the socket' "$(property ActiveState gradientd.socket) $(systemctl is-enabled gradientd.socket)" \
        'active enabled'
    expect 'the service' "$(property ActiveState)" inactive
    expect "the user's directory and shell" "$(getent passwd gradientd | cut -d: -f6-)" /:/usr/sbin/nologin
    expect 'the user' "$(id -un gradientd):$(id -Gn gradientd)" gradientd:gradientd
    expect 'the state directory' "$(stat -c '%U:%G %a' "$state")" 'gradientd:gradientd 755'
    ok 'the package is installed, and its socket listens'
}

# Trains again and again while the file `upgrading` is there; ends with status 1 where one is not served.
keep_training() {
    while [[ -e $traces/upgrading ]]; do
        as_user "$bob" /t/steps another <<<10 >/dev/null 2>"$traces/others" || return 1
    done
}

# Who connects meanwhile waits in the socket's backlog; a run goes on.
check_upgrade() {
    local pid inode others
    train training
    go_to 100
    pid=$(property MainPID) inode=$(stat -c %i "$socket")
    : >"$traces/upgrading"
    keep_training &
    others=$!
    dpkg -i /t/packages/gradientd_*.deb >/tmp/dpkg 2>&1 || fail "dpkg -i: $(cat /tmp/dpkg)"
    rm "$traces/upgrading"
    wait "$others" || fail "a trainer that comes meanwhile says: $(cat "$traces/others")"
    another_process "$pid" || fail 'the service was not restarted'
    expect "the socket's inode" "$(stat -c %i "$socket")" "$inode"
    go_to 200
    finish
    expect_undisturbed
    ok 'a run goes on through an upgrade, and the socket listens all the while'
}

# The trainer finishes without a daemon.
check_removal() {
    train training "$logdir"
    go_to 100
    dpkg -r gradientd >/tmp/dpkg 2>&1 || fail "dpkg -r: $(cat /tmp/dpkg)"
    ! pgrep -u gradientd >/dev/null || fail "there is still: $(pgrep -a -u gradientd)"
    ! pgrep -x gradientd >/dev/null || fail "there is still: $(pgrep -a -x gradientd)"
    [[ ! -e $socket ]] || fail "$socket is still there"
    expect 'the socket' "$(property ActiveState gradientd.socket)" inactive
    [[ -d $state/$alice ]] || fail 'the event files are gone before the purge'
    kill -KILL "$trainer_pid"
    wait "$trainer_pid" 2>/dev/null || true
    ok 'the removed package leaves nothing running'
}

check_purge() {
    dpkg -P gradientd libgradientd0 libgradientd-dev >/tmp/dpkg 2>&1 || fail "dpkg -P: $(cat /tmp/dpkg)"
    ldconfig
    cmp /etc/passwd "$traces/passwd" || fail 'a user is left'
    cmp /etc/group "$traces/group" || fail 'a group is left'
    list_files | sort | diff "$traces/files" - >/tmp/left || fail "is left: $(cat /tmp/left)"
    ok 'the purged package leaves nothing behind'
}
