// What a configuration that was read again changes while the daemon runs.
#pragma once

#include <stddef.h>

#include "settings.h"

enum { GD_RELOAD_TEXT_BYTES = 512 }; // all keys fit

// Gives *options what is live of `fresh`; all else stays, and so do the strings. Writes to `ret_text` which settings
// changed, and which would have but for a restart.
void gd_reload_apply(struct gd_server_options *options, const struct gd_server_options *fresh,
                     char ret_text[static GD_RELOAD_TEXT_BYTES]);
