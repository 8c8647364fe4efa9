#!/usr/bin/env bash
# The examples as a user runs them: what they learn, that gradientd changes nothing about it, and that the daemon got
# every step. Usage: examples_check.sh BUILD_DIR
set -euo pipefail

build_dir=$1
digits=$build_dir/examples/digits
quadratic=$build_dir/examples/quadratic
gradientctl=$build_dir/ctl/gradientctl
work_dir=$(mktemp -d)
trap 'rm -rf "$work_dir"' EXIT
unset GRADIENTD_SOCKET GRADIENTD_DAEMON XDG_RUNTIME_DIR

fail() {
    printf 'examples_check: %s\n' "$*" >&2
    exit 1
}

# expect_text FILE TEXT
expect_text() {
    grep -qF -- "$2" "$1" || fail "no '$2' in: $(cat "$1")"
}

# expect_true WHAT AWK_EXPRESSION
expect_true() {
    awk "BEGIN { exit !($2) }" || fail "$1: $2"
}

# dump_of LOGDIR RUN: the scalars of the run's one event file
dump_of() {
    "$gradientctl" dump "$1/$2"/events.out.tfevents.*
}

check_digits() {
    local attached=$work_dir/digits-attached alone=$work_dir/digits-alone dump=$work_dir/digits.csv

    "$digits" --logdir "$work_dir/runs" --max-stall 60 >"$attached"
    "$digits" --no-gradientd --weights "$work_dir/weights" >"$alone"
    [[ $(wc -c <"$work_dir/weights") == $(((65 * 64 + 65 * 32 + 33 * 10) * 4)) ]] || fail "not all weights were written"
    expect_text "$attached" 'skipped steps 0'
    [[ $(grep '^weights' "$attached") == $(grep '^weights' "$alone") ]] || fail "gradientd changed the weights"
    expect_true 'test accuracy' "$(awk '/^test accuracy/ { print $3 }' "$attached") >= 95"

    dump_of "$work_dir/runs" digits-adam >"$dump"
    [[ $(grep -c ',train/loss,' "$dump") == 1500 ]] || fail "not every step has a loss"
    [[ $(grep -c ',test/accuracy,' "$dump") == 30 ]] || fail "not every evaluation has an accuracy"
    [[ $(grep -c ',adam/C_over_A,' "$dump") -gt 1400 ]] || fail "C/A is missing"
}

# Healthy training, of which no rule has anything to say; and training at too large a rate, of which one has.
check_alerts() {
    local name texts
    for name in adam amsgrad sgd; do
        "$digits" --logdir "$work_dir/healthy" --optimizer "$name" --max-stall 60 >"$work_dir/healthy-$name"
    done
    "$quadratic" --logdir "$work_dir/healthy" --max-stall 60 >"$work_dir/healthy-quadratic"
    for name in digits-adam digits-amsgrad digits-sgd quadratic-sgd; do
        texts=$(grep -ac 'alerts/[a-z]' "$work_dir/healthy/$name"/events.out.tfevents.*) || true
        [[ $texts == 0 ]] || fail "$name raises an alert"
    done
    "$digits" --logdir "$work_dir/steep" --optimizer sgd --learning-rate 0.2 --max-stall 60 >"$work_dir/steep-sgd"
    grep -aq 'alerts/cosine' "$work_dir/steep/digits-sgd"/events.out.tfevents.* ||
        fail "too large a rate raises no alert"
}

check_quadratic() {
    local attached=$work_dir/quadratic-attached alone=$work_dir/quadratic-alone dump=$work_dir/quadratic.csv

    "$quadratic" --logdir "$work_dir/runs" --max-stall 60 >"$attached"
    "$quadratic" --logdir '' >"$alone"
    expect_text "$attached" 'skipped steps 0'
    [[ $(grep '^loss' "$attached") == $(grep '^loss' "$alone") ]] || fail "gradientd changed x"

    # Far away the gradients agree; at the minimum they are noise, weakly against each other.
    dump_of "$work_dir/runs" quadratic-sgd >"$dump"
    expect_true 'mean cosine of steps 2 to 11' \
        "$(awk -F, '$3 == "coherence/cosine_lag1" && $2 <= 11 { s += $4; n++ } END { print s / n }' "$dump") > 0.9"
    expect_true 'mean cosine of the second half' \
        "$(awk -F, '$3 == "coherence/cosine_lag1" && $2 > 1000 { s += $4; n++ } END { print s / n }' "$dump") < 0.1"
}

# A daemon that cannot be reached costs one warning and nothing else.
check_unreachable() {
    "$digits" --steps 20 --socket "$work_dir/nobody" --logdir "$work_dir/unreachable" \
        >"$work_dir/out" 2>"$work_dir/warnings"
    [[ $(wc -l <"$work_dir/warnings") == 1 ]] || fail "not one warning: $(cat "$work_dir/warnings")"
    expect_text "$work_dir/warnings" 'training goes on without gradientd'
    "$digits" --steps 20 --no-gradientd >"$work_dir/alone"
    diff "$work_dir/out" "$work_dir/alone" || fail "the training differs"
}

# expect_refused TEXT ARGUMENT...: exit status 2 and a line that holds TEXT
expect_refused() {
    local text=$1 status=0
    shift
    "$digits" "$@" >/dev/null 2>"$work_dir/refusal" || status=$?
    ((status == 2)) || fail "digits $* ended with status $status"
    expect_text "$work_dir/refusal" "$text"
}

check_arguments() {
    expect_refused "--steps is '0', must be a whole number from 1 to" --steps 0
    expect_refused "--steps is '12x'" --steps 12x
    expect_refused "--seed is '-1'" --seed -1
    expect_refused "--learning-rate is 'nan', must be a number above 0" --learning-rate nan
    expect_refused "--max-stall is '-1', must be a number from 0 to 3600" --max-stall -1
    expect_refused "--optimizer is 'foo', must be one of sgd adam" --optimizer foo
    expect_refused "unrecognized option '--foo'" --foo
    expect_refused "unexpected argument 'bar'" bar
}

check_optimizers() {
    local optimizer
    for optimizer in sgd adamw rmsprop amsgrad adagrad adafom; do
        "$digits" --no-gradientd --optimizer "$optimizer" >"$work_dir/out"
        expect_true "test accuracy with $optimizer" "$(awk '/^test accuracy/ { print $3 }' "$work_dir/out") >= 95"
    done
}

check_arguments
check_optimizers
check_unreachable
check_digits
check_quadratic
check_alerts
