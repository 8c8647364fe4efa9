#include "fixture.h"

#include <stdio.h>

char directory[SCRATCH_PATH_BYTES];
char event_path[SCRATCH_PATH_BYTES + 16];
struct daemon_process daemon_process;

void fixture_set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    daemon_process_start(&daemon_process, directory);
}

void fixture_tear_down(void) {
    if (daemon_process.pid > 0)
        daemon_process_stop(&daemon_process);
    scratch_remove(directory);
}
