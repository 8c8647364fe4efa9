#!/usr/bin/env bash
# systemd finds nothing to say about the units as they are installed. Usage: units_check.sh BUILD_DIR PREFIX
set -euo pipefail

build_dir=$1
prefix=$2
work_dir=$(mktemp -d)
trap 'rm -rf "$work_dir"' EXIT
root=$work_dir/root

if ! command -v systemd-analyze >/dev/null; then
    echo 'skipped: there is no systemd-analyze'
    exit 77
fi

fail() {
    printf 'units_check: %s\n' "$*" >&2
    exit 1
}

# verify DIR OPTION...: the pair of units in DIR
verify() {
    local dir=$1 status=0
    shift
    # in the place where it is installed now, the program is there to be checked
    sed -i "s#^\(Exec[A-Z][a-z]*\)=$prefix/#\1=$root$prefix/#" "$dir/gradientd.service"
    grep -q "^ExecStart=$root$prefix/bin/gradientd\$" "$dir/gradientd.service" || fail "no program in $dir"
    systemd-analyze verify --man=no "$@" "$dir/gradientd.socket" "$dir/gradientd.service" \
        >"$work_dir/verify.log" 2>&1 || status=$?
    if ((status != 0)) || [[ -s $work_dir/verify.log ]]; then
        cat "$work_dir/verify.log" >&2
        fail "systemd-analyze verify $* ends with status $status"
    fi
}

meson install -C "$build_dir" --no-rebuild --destdir "$root" >"$work_dir/install.log" || {
    cat "$work_dir/install.log" >&2
    fail 'meson install'
}
verify "$root$prefix/lib/systemd/system"
XDG_RUNTIME_DIR=$work_dir verify "$root$prefix/lib/systemd/user" --user
for kind in sysusers tmpfiles; do
    [[ -s $root$prefix/lib/$kind.d/gradientd.conf ]] || fail "no $kind.d/gradientd.conf is installed"
done
configuration=$(sed -n 's/^Environment=CONFIGURATION_DIRECTORY=//p' "$root$prefix/lib/systemd/system/gradientd.service")
[[ -s $root$configuration/gradientd.conf ]] || fail "the service looks for its configuration in $configuration"
systemd-analyze security --offline=true --threshold=15 --no-pager "$root$prefix/lib/systemd/system/gradientd.service" \
    >"$work_dir/security.log" 2>&1 || {
    cat "$work_dir/security.log" >&2
    fail 'systemd-analyze security finds the service exposed'
}
