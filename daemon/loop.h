// libuv's loop and its threads, so that a client gives libuv no reason to abort: it does where it gets no memory for
// its table of descriptors, and where it gets no thread for its pool, which it starts with the first piece of work.
#pragma once

#include <stdint.h>
#include <uv.h>

// Starts the loop and a pool of `workers` threads; before any other use of libuv, once a process. Returns 0 or a
// negative errno. Where libuv aborts all the same, for want of a thread, the process ends with a message.
__attribute__((warn_unused_result)) int gd_loop_init(uv_loop_t *loop, uint32_t workers);
