// OpenRuns that seeds and targets share: between them they ask for everything that shapes a run's memory.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "message.h"

// 1 to 7 have the rule of that number, with more groups and options the higher it is. 8 is handed start vectors beside
// shadow rules, 9 thins what it writes and has few slots, 10 has streams beside the gradient, 11 the rule other beside
// shadow rules.
enum { OPEN_RUNS_FIRST = 1, OPEN_RUNS_LAST = 11 };

struct open_run_message {
    uint8_t message[512]; // a ClientMessage
    size_t message_bytes;
    uint8_t table[512]; // its payload
    size_t table_bytes;
};

void open_runs_write(int number, struct open_run_message *ret_message);

// The same as the daemon reads it; the caller's, gd_open_run_free().
struct gd_open_run *open_runs_read(int number);
