# shellcheck shell=bash
# What the scripts here share; they source it after `set -euo pipefail`.

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What building the daemon, the client and the examples takes, as Debian 12 names it.
# shellcheck disable=SC2034 # used by the scripts that source this file
build_packages=(gcc meson ninja-build pkg-config libuv1-dev libprotobuf-c-dev protobuf-c-compiler zlib1g-dev
    libpng-dev libinih-dev)

# shellcheck disable=SC2034
tensorboard=tensorboard==2.21.0

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

# Prints the first Python that is new enough for TensorBoard to stdout.
find_python() {
    local python
    for python in python3 /usr/bin/python3 python3.{11..15}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

# install_into_venv DIR NAME==VERSION...: Python packages, into a virtual environment that is made where there is none.
install_into_venv() {
    local venv=$1 python package missing=()
    shift

    for package in "$@"; do
        [[ -e $venv/installed/$package ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if [[ ! -d $venv/installed ]]; then
        find_python >/dev/null || install_packages python3 python3-venv
        python=$(find_python) || fail "TensorBoard needs Python 3.11 or later"
        "$python" -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
        "$python" -m venv --clear "$venv"
        echo '*' >"$venv/.gitignore"
        mkdir "$venv/installed"
    fi

    echo "installing ${missing[*]} into $venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${missing[@]}"
    for package in "${missing[@]}"; do
        : >"$venv/installed/$package" # only now is it complete
    done
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
