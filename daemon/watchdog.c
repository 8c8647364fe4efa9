#include "watchdog.h"

bool gd_watchdog_is_well(struct gd_watchdog *watchdog, uint64_t progress, uint32_t working) {
    bool hangs = working > 0 && progress == watchdog->progress;
    watchdog->progress = progress;
    return !hangs;
}
