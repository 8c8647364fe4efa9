// A terminal as a program has it to itself: the alternate screen, keys as they are pressed, and signals as they come.
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <termios.h>

enum gd_screen_event {
    GD_SCREEN_NOTHING = 0,
    // Otherwise a key's character, or one of these, which are none.
    GD_SCREEN_END = -1,     // a signal that ends the program, or the terminal is gone
    GD_SCREEN_CHANGED = -2, // its size is another, or it has shown something else meanwhile
};

struct gd_screen {
    bool has_keys; // standard input is a terminal too
    int signals;   // a signalfd
    struct termios keys_before;
    sigset_t mask_before;
};

// Takes the terminal. Returns 0, or a negative errno with everything as it was.
__attribute__((warn_unused_result)) int gd_screen_enter(struct gd_screen *ret_screen);

// Gives it back as it was.
void gd_screen_leave(struct gd_screen *screen);

// What to poll for input: the signals' descriptor and that of the keys, -1 where there are none.
void gd_screen_fds(const struct gd_screen *screen, int ret_fds[2]);

// Takes one event that has come. Stops the process where Ctrl-Z asks for that, with the terminal given back meanwhile.
// Returns a gd_screen_event or a character.
int gd_screen_next(struct gd_screen *screen);

// Shows the first `lines` (at least 1) of a text from the top, in place of what was shown.
void gd_screen_show(const char *text, size_t lines);
