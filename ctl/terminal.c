#include "terminal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

// https://no-color.org: set and not empty.
static bool wants_colours(void) {
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(none && *none) && term && *term && strcmp(term, "dumb") != 0;
}

struct gd_terminal gd_terminal_look(void) {
    struct gd_terminal terminal = {.columns = SIZE_MAX, .rows = SIZE_MAX};
    struct winsize size;

    terminal.is_terminal = isatty(STDOUT_FILENO) == 1;
    terminal.colours = terminal.is_terminal && wants_colours();
    if (terminal.is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
        if (size.ws_col > 0)
            terminal.columns = size.ws_col;
        if (size.ws_row > 0)
            terminal.rows = size.ws_row;
    }
    return terminal;
}
