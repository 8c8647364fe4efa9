// SIGHUP: reads the configuration again and applies what can change while the daemon runs. Files and lookups of users
// may hang, so they are read on a thread of its own; runs do not notice.
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "config.h"

enum gd_reloader_phase {
    GD_RELOADER_IDLE,
    GD_RELOADER_READING,
    GD_RELOADER_READING_AGAIN, // another SIGHUP came meanwhile: what was read may be old
};

struct gd_reloader {
    uv_signal_t signal;
    uv_async_t done;
    uv_thread_t thread;
    enum gd_reloader_phase phase;
    struct gd_server_options *options; // in force
    struct gd_config config;           // the thread's while it reads
    struct gd_config_report report;
    int result;
    void (*apply)(void *context);
    void *context;
};

// Starts to listen to SIGHUP, whose default action must be off. Where *options change, `apply` is called. The struct
// stays where it is until the loop has ended. The loop's thread, as all here.
void gd_reloader_init(struct gd_reloader *reloader, uv_loop_t *loop, struct gd_server_options *options,
                      void (*apply)(void *context), void *context);

// Ends it; nothing is applied any more.
void gd_reloader_close(struct gd_reloader *reloader);

// After the loop's end: a thread still reads, and may come back to what the caller would free.
bool gd_reloader_is_hanging(const struct gd_reloader *reloader);
