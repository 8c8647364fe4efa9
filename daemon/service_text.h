// What systemctl status says of the daemon.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { GD_SERVICE_TEXT_BYTES = 96 };

// As "Serving 2 runs, 1,234 steps", or "Finishing ..." of a daemon that is stopping. `steps`: committed since it
// started, of all runs.
void gd_service_format(bool stopping, uint32_t runs, uint64_t steps, char ret_text[static GD_SERVICE_TEXT_BYTES]);
