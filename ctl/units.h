// Numbers, moments and users as people read them.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

// Three significant digits with a decimal prefix, as "1.23 M"; whole numbers below 10,000 as they are.
void gd_units_write_count(FILE *out, double count);

// With a binary prefix, as "1.2 GiB".
void gd_units_write_bytes(FILE *out, uint64_t bytes);

// The two largest units, as "3 h 5 min".
void gd_units_write_duration(FILE *out, double seconds);

// Local time, as "2026-11-27 14:05:09", from seconds since the epoch.
void gd_units_write_time(FILE *out, double time);

// The user's name, or the number where there is none, printable.
void gd_units_write_user(FILE *out, uid_t uid);
