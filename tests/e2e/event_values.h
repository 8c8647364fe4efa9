// An event file read back: every scalar in it (text is left out), and how it begins and ends.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_value {
    double wall_time;
    int64_t step;
    char tag[256];
    float value;
};

struct event_values {
    struct event_value *values;
    size_t n_values, capacity;
    unsigned starts, stops; // SessionLog records
    int64_t start_step;     // of the last START
    bool whole;             // the file ends where a record ends
};

// Reads the file; damage in it fails the test.
void event_values_read(const char *path, struct event_values *ret_values);
void event_values_free(struct event_values *values);

// The value of `tag` at `step`, NULL when there is none. More than one fails the test.
const struct event_value *event_values_find(const struct event_values *values, const char *tag, int64_t step);

// How many values `tag` has.
size_t event_values_count(const struct event_values *values, const char *tag);

// Whether the file at path `context` ends with SessionLog STOP: a condition for scratch_wait_until().
bool event_values_ended(const void *context);
