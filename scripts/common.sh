# shellcheck shell=bash
# What the scripts here share; they source it after `set -euo pipefail`.

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What building the daemon, the client and the examples takes, as Debian 12 names it.
# shellcheck disable=SC2034 # used by the scripts that source this file
build_packages=(gcc meson ninja-build pkg-config libuv1-dev libprotobuf-c-dev protobuf-c-compiler zlib1g-dev
    libpng-dev)

# fail TEXT...: ends the script with a line on stderr.
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

is_installed() {
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

# install_packages PACKAGE...: installs those that are missing, and touches nothing when none is.
install_packages() {
    local package missing=()

    command -v dpkg-query >/dev/null ||
        fail "this is no Debian; install by hand what gives you: $*"
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    ((EUID == 0)) || command -v sudo >/dev/null ||
        fail "neither root nor sudo; have installed: ${missing[*]}"
    echo "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# build DIR [MESON OPTION...]: builds the source tree in DIR, with the output of meson only when it fails.
build() {
    local dir=$1 output
    shift

    if [[ ! -e $dir/build.ninja ]]; then
        echo "configuring $dir"
        if ! output=$(meson setup "$@" "$dir" "$source_dir" 2>&1); then
            printf '%s\n' "$output" >&2
            return 1
        fi
    elif (($#)); then
        meson configure "$@" "$dir"
    fi
    echo "building $dir"
    ninja --quiet -C "$dir"
}

# take_build NAME ARGUMENT...: the build directory with tests that comes first in the arguments, or else build-test/NAME,
# becomes $test_build, and what follows $test_arguments.
# shellcheck disable=SC2034 # used by the scripts that source this file
take_build() {
    test_build=$source_dir/build-test/$1
    shift
    if (($#)) && [[ $1 != -* ]]; then
        test_build=$1
        shift
    fi
    [[ -d $test_build ]] || fail "there is no build in $test_build; scripts/test makes one, or meson with -Dtests=true"
    test_build=$(realpath "$test_build")
    test_arguments=("$@")
}
