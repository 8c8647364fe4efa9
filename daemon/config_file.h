// One file of the configuration: [section] and key = value, as inih reads them.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config.h"

enum {
    GD_CONFIG_FILE_BYTES_MAX = 64 << 10, // a dozen times the file that is installed
    GD_CONFIG_LINE_BYTES_MAX = 197,      // what inih's buffer of 200 holds beside the end of a line
};

// Reads the file at `path`, which outlives *config, into *config; what is wrong is reported. Only a regular file is
// read, and nothing else is waited for. Where `is_optional`, a missing one is as good as an empty one, but for what a
// link leads to. Returns 1 where there was one, else 0; or -ENOMEM.
__attribute__((warn_unused_result)) int gd_config_file_read(const char *path, bool is_optional,
                                                            struct gd_config *config, struct gd_config_report *report);

// The same with the file's text. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_config_file_parse(const char *path, const char *text, size_t bytes,
                                                             struct gd_config *config, struct gd_config_report *report);
