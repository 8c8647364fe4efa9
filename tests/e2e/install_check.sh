#!/usr/bin/env bash
# What `meson install` puts down is enough to build and run a trainer: the pkg-config file, the header, the shared and
# the static library, the daemon and its configuration. The man pages are found and can be read.
# Usage: install_check.sh BUILD_DIR PREFIX
set -euo pipefail

build_dir=$1
prefix=$2
work_dir=$(mktemp -d)
trap 'rm -rf "$work_dir"' EXIT
root=$work_dir/root

fail() {
    printf 'install_check: %s\n' "$*" >&2
    exit 1
}

meson install -C "$build_dir" --no-rebuild --destdir "$root" >"$work_dir/install.log" || {
    cat "$work_dir/install.log" >&2
    fail 'meson install'
}
pc_file=$(find "$root" -name gradientd.pc)
[ -n "$pc_file" ] || fail 'no gradientd.pc is installed'
lib_dir=$(dirname "$(dirname "$pc_file")")

# The file's own directories get the sysroot in front of them, what the system has does not.
export PKG_CONFIG_PATH=${pc_file%/*}
gradientd_flags() {
    pkg-config --define-variable=prefix="$root$prefix" "$@" gradientd
}

cat >"$work_dir/trainer.c" <<'PROGRAM'
#include <gradientd/client.h>
#include <stdio.h>

int main(int argc, char **argv) {
    struct gradientd_group groups[] = {{.name = "weights", .numel = 4}};
    struct gradientd_parameter_group rates[] = {{.beta2 = 0.999, .eps = 1e-8}};
    struct gradientd_options options = gradientd_options_default();
    options.logdir = argv[argc - 1];
    options.run = "installed";
    options.groups = groups, options.n_groups = 1;
    options.parameter_groups = rates, options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.private_daemon = true;
    options.max_stall = 10;

    struct gradientd_run *run;
    struct gradientd_error error;
    if (gradientd_open(&options, &run, &error) < 0)
        return fprintf(stderr, "%s\n", error.text), 1;
    for (int64_t step = 1; step <= 10; step++) {
        const float gradient[] = {1, 2, 3, 4};
        const void *gradients[] = {gradient};
        double learning_rate = 1e-3;
        if (gradientd_submit(run, &(struct gradientd_step){.step = step, .learning_rates = &learning_rate}, gradients))
            return 1;
    }
    puts(gradientd_event_path(run));
    fflush(stdout);
    return gradientd_close(run, GRADIENTD_SUCCESS);
}
PROGRAM

# check NAME: runs the trainer that was built as NAME and counts what it wrote.
check() {
    local event_file norms
    event_file=$(env -u XDG_RUNTIME_DIR GRADIENTD_SOCKET=/nowhere/socket LD_LIBRARY_PATH="$lib_dir" \
        GRADIENTD_DAEMON="$root$prefix/bin/gradientd" "$work_dir/$1" "$work_dir/logdir") || fail "$1 trainer fails"
    norms=$("$root$prefix/bin/gradientctl" dump "$event_file" | grep -c ',gradient/norm,') || fail "$1: no values"
    [ "$norms" -eq 10 ] || fail "$1: $norms norms of 10"
}

read -ra shared_flags <<<"$(gradientd_flags --cflags --libs)"
cc -std=c11 -Wall -Wextra -Wpedantic -Werror -o "$work_dir/shared" "$work_dir/trainer.c" "${shared_flags[@]}" \
    -Wl,--fatal-warnings || fail 'linking with the shared library'
[[ $(ldd "$work_dir/shared") == *libgradientd.so* ]] || fail 'the shared trainer does not use the shared library'
check shared

read -ra static_flags <<<"$(gradientd_flags --static --cflags --libs)"
cc -std=c11 -static -o "$work_dir/static" "$work_dir/trainer.c" "${static_flags[@]}" || fail 'linking statically'
check static

for program in gradientctl gradientd; do
    [ -s "$root$prefix/share/bash-completion/completions/$program" ] || fail "no completion of $program is installed"
done

# Each man page is in the directory of its section, and man, where there is one, shows it without a complaint.
for page in gradientctl.1 gradientd-client.3 gradientd.8 gradientd.conf.5; do
    man_page=$(find "$root$prefix" -path "*/man${page##*.}/$page")
    [ -n "$man_page" ] || fail "no $page is installed"
    command -v man >/dev/null || continue
    complaints=$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings --local-file "$man_page" 2>&1 >"$work_dir/$page.txt") ||
        fail "$page cannot be shown: $complaints"
    [ -z "$complaints" ] || fail "$page: $complaints"
    grep -q '^NAME$' "$work_dir/$page.txt" || fail "$page is shown without its text"
done

# The configuration is where the daemon of this prefix looks for it, and the daemon takes it.
daemon=$root$prefix/bin/gradientd
config_dir=$("$daemon" --help | sed -n 's/^.*else in \(.*\)\/gradientd for root.*$/\1/p')
[ -d "$root$config_dir/gradientd/gradientd.conf.d" ] || fail "no $config_dir/gradientd/gradientd.conf.d is installed"
"$daemon" --check-config --config "$root$config_dir/gradientd/gradientd.conf" >"$work_dir/config.txt" ||
    fail 'the configuration that is installed is wrong'
grep -q "^$root$config_dir/gradientd/gradientd.conf\$" "$work_dir/config.txt" || fail 'the configuration was not read'

# The example in the library's page is a program.
sed -n '/^\.Bd -literal$/,/^\.Ed$/{/^\./d;s/\\e/\\/g;p}' "$(find "$root$prefix" -name gradientd-client.3)" \
    >"$work_dir/page.c"
cc -std=c11 -Wall -Wextra -Wpedantic -Werror -o "$work_dir/page" "$work_dir/page.c" "${shared_flags[@]}" ||
    fail 'the example in gradientd-client.3 does not build'

# Nothing but the API is visible to a program.
exported=$(nm -D --defined-only "$lib_dir/libgradientd.so" | awk '{ print $3 }' | grep -v '^gradientd_[a-z_]*$' || true)
[ -z "$exported" ] || fail "libgradientd.so also exports: $exported"
