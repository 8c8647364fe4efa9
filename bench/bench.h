// The parts of the benchmark, each of which adds its rows to the report.
#pragma once

#include <stdint.h>

#include "report.h"

struct bench_settings {
    bool quick;         // fewer repetitions and shorter series: under 45 s for all
    size_t repetitions; // of what is compared
    uint64_t elements;  // of the large model
    const char *daemon; // the daemon's program
    const char *python; // with the peers' packages, NULL: none are compared
};

typedef void bench_part(const struct bench_settings *settings, struct bench_report *report);

bench_part bench_kernels;    // the fused pass against a plain read of the same bytes
bench_part bench_whole;      // a step with all families against the pass of the first two
bench_part bench_stalls;     // what a step costs the trainer
bench_part bench_training;   // the steps of a real training, whatever becomes of the daemon
bench_part bench_throughput; // snapshots of small models
bench_part bench_scalars;    // the trainer's own values
bench_part bench_against;    // what people use today; nothing where settings->python is NULL
bench_part bench_scaling;    // over elements, groups, runs and steps

// Scalars a second from a trainer, 1,000 a step, into a finished event file.
double bench_scalars_a_second(const struct bench_settings *settings, int64_t steps);
