#include "units.h"

#include <inttypes.h>
#include <math.h>
#include <pwd.h>
#include <time.h>

#include "printable.h"

static const double WHOLE_MAX = 9999.0;      // more digits are not read as one number
static const double DURATION_MAX = 1e11;     // seconds: 3,000 years; beyond it a clock is wrong
static const double TIME_MAX = 253402300799; // the end of the year 9999

void gd_units_write_count(FILE *out, double count) {
    static const char prefixes[] = "kMGTPE";
    if (!isfinite(count) || count < 999.5 || (count <= WHOLE_MAX && count == floor(count))) {
        fprintf(out, count == floor(count) ? "%.0f" : "%.3g", count);
        return;
    }
    size_t prefix = 0;
    count /= 1000.0;
    while (count >= 999.5 && prefix + 2 < sizeof(prefixes)) {
        count /= 1000.0;
        prefix++;
    }
    fprintf(out, count < 9.995 ? "%.2f %c" : count < 99.95 ? "%.1f %c" : "%.0f %c", count, prefixes[prefix]);
}

void gd_units_write_bytes(FILE *out, uint64_t bytes) {
    static const char prefixes[] = "KMGTPE";
    double amount = (double)bytes / 1024.0;
    if (bytes < 1024) {
        fprintf(out, "%" PRIu64 " B", bytes);
        return;
    }
    size_t prefix = 0;
    while (amount >= 1023.5 && prefix + 2 < sizeof(prefixes)) {
        amount /= 1024.0;
        prefix++;
    }
    fprintf(out, amount < 99.95 ? "%.1f %ciB" : "%.0f %ciB", amount, prefixes[prefix]);
}

void gd_units_write_duration(FILE *out, double seconds) {
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"d", 86400.0}, {"h", 3600.0}, {"min", 60.0}, {"s", 1.0}};
    enum { N_UNITS = sizeof(units) / sizeof(units[0]) };

    if (!(seconds >= 0.0 && seconds < DURATION_MAX)) {
        fputs("?", out);
        return;
    }
    if (seconds < 10.0) {
        fprintf(out, "%.1f s", seconds);
        return;
    }
    size_t unit = 0;
    while (unit + 1 < N_UNITS && seconds < units[unit].seconds)
        unit++;
    double most = floor(seconds / units[unit].seconds);
    fprintf(out, "%.0f %s", most, units[unit].name);
    if (unit + 1 < N_UNITS)
        fprintf(out, " %.0f %s", floor((seconds - most * units[unit].seconds) / units[unit + 1].seconds),
                units[unit + 1].name);
}

void gd_units_write_time(FILE *out, double time) {
    char text[32];
    struct tm local;
    time_t whole = time >= 0.0 && time <= TIME_MAX ? (time_t)time : -1;
    if (whole < 0 || !localtime_r(&whole, &local) || !strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local))
        fputs("?", out);
    else
        fputs(text, out);
}

void gd_units_write_user(FILE *out, uid_t uid) {
    const struct passwd *user = getpwuid(uid);
    if (user)
        gd_printable_write(out, user->pw_name);
    else
        fprintf(out, "%u", uid);
}
