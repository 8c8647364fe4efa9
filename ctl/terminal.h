// What standard output is.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct gd_terminal {
    bool is_terminal;
    bool colours;         // and they are wanted: neither NO_COLOR is set nor TERM "dumb"
    size_t columns, rows; // SIZE_MAX: no limit, or not known
};

struct gd_terminal gd_terminal_look(void);
