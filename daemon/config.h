// The configuration: defaults, then the configuration's files, then the command line, each over what was before.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "options.h"
#include "settings.h"

enum {
    GD_CONFIG_FILES_MAX = 256,  // that are read; an administrator has a handful
    GD_CONFIG_ERRORS_MAX = 100, // that are reported: a file that is something else altogether has one a line
};

struct gd_config_source {
    const char *path; // one of the configuration's, NULL: none
    unsigned line;
};

struct gd_config {
    struct gd_server_options options; // its strings are `strings`' and the command line's
    struct gd_config_source sources[GD_SETTINGS];
    bool from_command_line[GD_SETTINGS];
    char *strings[GD_SETTINGS];       // owned
    char *paths[GD_CONFIG_FILES_MAX]; // owned, of the files that were read
    uint32_t n_paths;
};

// Where errors go: `path` is the file, `line` 0 where it is the whole file.
struct gd_config_report {
    void (*say)(void *context, const char *path, unsigned line, const char *text);
    void *context;
    uint32_t n_errors;
};

// Says one error, and after GD_CONFIG_ERRORS_MAX of them no more.
__attribute__((format(printf, 4, 5))) void gd_config_say(struct gd_config_report *report, const char *path,
                                                         unsigned line, const char *format, ...);

// Reads the files that `command_line` names, or else those of the default place, which may be missing; a private
// daemon reads none. May block for as long as the file system, or looking up a user, does. Returns 0; -EBADMSG where
// something is wrong, all of which was reported then; or -ENOMEM. *config is gd_config_deinit()'s in every case.
// One thread at a time.
__attribute__((warn_unused_result)) int gd_config_read(struct gd_config *config,
                                                       const struct gd_command_line *command_line,
                                                       struct gd_config_report *report);

void gd_config_deinit(struct gd_config *config);

// Prints every setting with what is in force and where it comes from, and the files that were read.
void gd_config_print(const struct gd_config *config, FILE *stream);
