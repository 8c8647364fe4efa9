#include "screen.h"

#include <errno.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

// ANSI sequences, as every terminal has them: the alternate screen and the cursor, off and on.
static const char ENTER[] = "\033[?1049h\033[?25l";
static const char LEAVE[] = "\033[?25h\033[?1049l";
static const char HOME[] = "\033[H", CLEAR_LINE[] = "\033[K", CLEAR_BELOW[] = "\033[J";

static void show_sequence(const char *sequence) {
    fputs(sequence, stdout);
    fflush(stdout);
}

static void take_keys(struct gd_screen *screen) {
    struct termios keys;
    screen->has_keys = tcgetattr(STDIN_FILENO, &screen->keys_before) == 0;
    if (!screen->has_keys)
        return;
    keys = screen->keys_before;
    keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO); // Ctrl-C and Ctrl-Z stay signals
    keys.c_cc[VMIN] = 0;
    keys.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &keys);
}

static void give_keys_back(const struct gd_screen *screen) {
    if (screen->has_keys)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &screen->keys_before);
}

int gd_screen_enter(struct gd_screen *ret_screen) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    struct gd_screen screen = {0};
    sigset_t signals;

    sigemptyset(&signals);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaddset(&signals, numbers[i]);
    screen.signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (screen.signals < 0)
        return -errno;
    sigprocmask(SIG_BLOCK, &signals, &screen.mask_before);
    take_keys(&screen);
    show_sequence(ENTER);
    *ret_screen = screen;
    return 0;
}

void gd_screen_leave(struct gd_screen *screen) {
    show_sequence(LEAVE);
    give_keys_back(screen);
    close(screen->signals);
    sigprocmask(SIG_SETMASK, &screen->mask_before, NULL);
}

void gd_screen_fds(const struct gd_screen *screen, int ret_fds[2]) {
    ret_fds[0] = screen->signals;
    ret_fds[1] = screen->has_keys ? STDIN_FILENO : -1;
}

// Until somebody continues the process; its shell may have changed the terminal meanwhile.
static int stop(struct gd_screen *screen) {
    show_sequence(LEAVE);
    give_keys_back(screen);
    raise(SIGSTOP);
    take_keys(screen);
    show_sequence(ENTER);
    return GD_SCREEN_CHANGED;
}

static int take_signal(struct gd_screen *screen, const struct signalfd_siginfo *signal) {
    if (signal->ssi_signo == SIGTSTP)
        return stop(screen);
    return signal->ssi_signo == SIGWINCH ? GD_SCREEN_CHANGED : GD_SCREEN_END;
}

int gd_screen_next(struct gd_screen *screen) {
    struct signalfd_siginfo signal;
    char key;
    if (read(screen->signals, &signal, sizeof(signal)) == sizeof(signal))
        return take_signal(screen, &signal);
    if (!screen->has_keys)
        return GD_SCREEN_NOTHING;
    ssize_t bytes = read(STDIN_FILENO, &key, 1);
    if (bytes < 0 && errno == EIO)
        return GD_SCREEN_END;
    return bytes == 1 && key > 0 ? key : GD_SCREEN_NOTHING;
}

void gd_screen_show(const char *text, size_t lines) {
    fputs(HOME, stdout);
    for (; *text; text++) {
        bool ends = *text == '\n' && (--lines == 0 || !text[1]); // one line more would move the others up
        if (ends)
            break;
        if (*text == '\n')
            fputs(CLEAR_LINE, stdout);
        putchar(*text);
    }
    fputs(CLEAR_LINE, stdout);
    fputs(CLEAR_BELOW, stdout);
    fflush(stdout);
}
