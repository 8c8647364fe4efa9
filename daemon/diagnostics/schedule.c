#include "diagnostics/schedule.h"

bool gd_schedule_shows(uint64_t snapshot) {
    if (snapshot < 4)
        return snapshot > 0;
    int exponent = 63 - __builtin_clzll(snapshot);
    uint64_t quarter = UINT64_C(1) << (exponent - 2);
    return snapshot % quarter == 0 && snapshot / quarter < 7; // 4, 5 and 6 quarters of the last power of two
}

bool gd_schedule_shows_image(uint64_t snapshot) {
    return snapshot > 0 && (snapshot & (snapshot - 1)) == 0;
}
