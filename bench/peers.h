// The other end of bench/peers.py: a process that does what people use today, one repetition when asked.
#pragma once

#include <stdio.h>
#include <sys/types.h>

#include "bench.h"

struct bench_peers {
    pid_t pid;
    FILE *questions, *answers;
};

// Starts settings->python on peers.py. Ends the program with a message where that fails.
void bench_peers_start(struct bench_peers *peers, const struct bench_settings *settings);
void bench_peers_stop(struct bench_peers *peers);

// Asks one question, as peers.py describes them, and waits for the number.
double bench_peers_ask(struct bench_peers *peers, const char *format, ...) __attribute__((format(printf, 2, 3)));
