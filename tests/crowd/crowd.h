// One of many trainers that run at once: what it is to do, and what it tells.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stress.h"

enum {
    CROWD_SPECS = 12, // the smaller ones of stress.h: up to 50,000 elements
    // In the odd ones trainers are killed, in the even ones the daemon. In the last one they close, which a trainer
    // gives up 3 s after its daemon: on a busy disk a killed one can take as long to be gone.
    CROWD_PHASES = 7,
};

struct crowd_trainer {
    // the plan
    char name[16];
    uint32_t spec;
    enum gradientd_transport transport;
    bool in_place;
    bool is_killed; // at some instant after `kill_after` steps
    bool restarts;  // and then goes on as another run from where it was
    bool forks;     // a child that has all its descriptors stays behind
    int64_t first;  // its first step
    int64_t kill_after;

    // what becomes of it; the shared part of it is stored by the trainer's process
    pid_t pid;
    pid_t seen_daemon; // the last that was seen to serve it, when it had submitted `seen_at`
    int64_t seen_at;
    _Atomic int64_t submitted; // the last step that was handed over
    _Atomic bool is_open;
    _Atomic bool is_closed;
    _Atomic uint64_t hash; // of its event file, once it is closed
};

// In memory that all processes share.
struct crowd {
    struct stress_place place;
    struct stress_spec *specs[CROWD_SPECS];
    pid_t pid;               // of the process that waits for all of them
    _Atomic uint32_t phase;  // 0: nobody trains yet
    _Atomic bool has_failed; // in the trainers' processes
    uint32_t n_trainers;
    struct crowd_trainer trainers[];
};

// Draws what a trainer is to do.
void crowd_plan(const struct crowd *crowd, struct crowd_trainer *trainer, uint32_t index, uint64_t *random);

// The step it may not go beyond in this phase. Who has no shared memory ends in the first one: it cannot go on when its
// daemon is killed.
int64_t crowd_limit(const struct crowd *crowd, const struct crowd_trainer *trainer, uint32_t phase);

// Starts it in a process of its own.
void crowd_start(struct crowd *crowd, struct crowd_trainer *trainer);

// Lets all go on in the next phase.
void crowd_open_phase(struct crowd *crowd, uint32_t phase);
