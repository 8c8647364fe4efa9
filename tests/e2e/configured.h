// A daemon with a configuration file, for the tests of both. Beside fixture.h.
#pragma once

#include "scratch.h"

enum { CONFIG_PATH_BYTES = SCRATCH_PATH_BYTES + 32 };

// In the fixture's directory, which others may enter.
extern char config_path[CONFIG_PATH_BYTES];

// Instead of the fixture's set-up: the directory and the paths, no file and no daemon yet.
void configured_set_up(void);

__attribute__((format(printf, 1, 2))) void write_config(const char *format, ...);

// Launches the fixture's daemon with this configuration file, and does not wait.
void launch_configured(const char *path);

// With config_path, and waits until it takes connections.
void start_configured(void);

// How often `text` is in the daemon's log.
unsigned count_in_log(const char *text);
