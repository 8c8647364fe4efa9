#include "configured.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fixture.h"

char config_path[CONFIG_PATH_BYTES];

void configured_set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    snprintf(config_path, sizeof(config_path), "%s/gradientd.conf", directory);
    cr_assert_eq(chmod(directory, 0755), 0);
}

void write_config(const char *format, ...) {
    va_list arguments;
    FILE *stream = fopen(config_path, "w");
    cr_assert(stream, "%s: %s", config_path, strerror(errno));
    va_start(arguments, format);
    vfprintf(stream, format, arguments);
    va_end(arguments);
    cr_assert_eq(fclose(stream), 0);
}

void launch_configured(const char *path) {
    char socket[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    const char *const arguments[] = {"--socket", socket, "--config", path, NULL};
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
}

void start_configured(void) {
    launch_configured(config_path);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
}

unsigned count_in_log(const char *text) {
    struct scratch_bytes log = scratch_read(daemon_process.log);
    unsigned count = 0;
    const uint8_t *end = log.data + log.bytes;
    for (const uint8_t *at = log.data; (at = memmem(at, (size_t)(end - at), text, strlen(text))); at++)
        count++;
    free(log.data);
    return count;
}
