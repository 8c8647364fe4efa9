// Whether the daemon is well enough for systemd's watchdog to be told so. Pure.
//
// The loop asks in equal intervals, of half of what systemd waits: that it comes to ask at all is one half of the
// answer. The other: of the parts of an analysis that are under way on other threads, one at least has got on since it
// was asked last. A part gets on when it begins, after every 65,536 elements or so (some milliseconds, of eight rules
// on a busy machine), and when it ends, so a long one is told from one that hangs. Work that waits for a thread does
// not count: what threads do beside parts (unmapping memory, inflating) ends by itself.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// {0} at first.
struct gd_watchdog {
    uint64_t progress; // when it was asked last
};

// `progress` is a count of what has got on, `working` how many parts are under way.
bool gd_watchdog_is_well(struct gd_watchdog *watchdog, uint64_t progress, uint32_t working);
