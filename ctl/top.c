// gradientctl top: the daemon and its runs, again and again.
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "json.h"
#include "printable.h"
#include "run_table.h"
#include "screen.h"

static const char KEYS[] = "sorted by rate (r), bytes written (b), memory (m), name (n), age (a); q ends";

struct top {
    struct gd_daemon_watch watch;
    const struct gd_daemon_options *options;
    bool on_screen;
    struct gd_screen screen;
    enum gd_run_order order;
    bool changed; // what is shown has to be shown again
    bool failed;  // the daemon has not answered the last time, see trouble
    struct gd_trouble trouble;
};

static int write_frame(struct top *top, FILE *out, const struct gd_terminal *terminal) {
    enum { OTHER_LINES = 3 }; // the keys, the titles, and what has no room
    if (top->failed) {
        gd_printable_write(out, top->trouble.text);
        fputs("\n\ntrying again\n", out);
        return 0;
    }
    int lines = gd_daemon_lines_write(&top->watch, out, terminal->columns);
    if (lines < 0)
        return lines;
    gd_printable_write_cut(out, top->on_screen ? KEYS : "", terminal->columns);
    putc('\n', out);

    size_t taken = (size_t)lines + OTHER_LINES, room = SIZE_MAX;
    if (terminal->rows != SIZE_MAX)
        room = terminal->rows > taken ? terminal->rows - taken : 0;
    gd_run_table_sort(&top->watch, top->order);
    int result = gd_run_table_write(&top->watch, out, terminal, room);
    if (room < top->watch.n_runs)
        fprintf(out, "and %zu more\n", top->watch.n_runs - room);
    return result;
}

static int show_on_screen(struct top *top) {
    struct gd_terminal terminal = gd_terminal_look();
    char *text = NULL;
    size_t bytes;
    FILE *frame = open_memstream(&text, &bytes);
    if (!frame)
        return -ENOMEM;
    int result = write_frame(top, frame, &terminal);
    if (fclose(frame) != 0)
        result = -ENOMEM;
    if (result == 0)
        gd_screen_show(text, terminal.rows);
    free(text);
    top->changed = false;
    return result;
}

static void print_json(const struct top *top) {
    if (!top->failed) {
        gd_daemon_report_print_json(&top->watch, NULL);
        return;
    }
    fputs("{\"error\":", stdout);
    gd_json_print_text(top->trouble.text);
    puts("}");
}

// One after another, for whoever reads them later.
static int print_frame(struct top *top) {
    static const struct gd_terminal paper = {.columns = SIZE_MAX, .rows = SIZE_MAX};
    int result = 0;
    if (top->options->json)
        print_json(top);
    else
        result = write_frame(top, stdout, &paper);
    if (!top->options->json)
        puts("");
    return result == 0 && gd_command_flush() != GD_EXIT_DONE ? -EIO : result;
}

static int show(struct top *top) {
    return top->on_screen ? show_on_screen(top) : print_frame(top);
}

static bool take_key(struct top *top, int key) {
    static const struct {
        char key;
        enum gd_run_order order;
    } orders[] = {{'r', GD_ORDER_RATE},
                  {'b', GD_ORDER_WRITTEN},
                  {'m', GD_ORDER_MEMORY},
                  {'n', GD_ORDER_NAME},
                  {'a', GD_ORDER_NUMBER}};
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        if (key == orders[i].key) {
            top->order = orders[i].order;
            top->changed = true;
        }
    }
    top->changed |= key == GD_SCREEN_CHANGED;
    return key != 'q' && key != GD_SCREEN_END;
}

// Takes keys and signals while it waits; between two questions what they change is shown at once.
static int wait_on_screen(void *context, int fd, short events, int milliseconds) {
    struct top *top = context;
    int inputs[2], key;
    gd_screen_fds(&top->screen, inputs);
    struct pollfd fds[] = {{.fd = fd, .events = events},
                           {.fd = inputs[0], .events = POLLIN},
                           {.fd = inputs[1], .events = POLLIN}};
    if (poll(fds, 3, milliseconds) < 0)
        return -errno;
    if ((fds[1].revents | fds[2].revents) & (POLLHUP | POLLERR))
        return -ECANCELED;
    while ((key = gd_screen_next(&top->screen)) != GD_SCREEN_NOTHING)
        if (!take_key(top, key))
            return -ECANCELED;
    if (fd < 0 && top->changed && show_on_screen(top) < 0)
        return -ECANCELED;
    return fds[0].revents != 0;
}

static int begin(struct top *top) {
    struct gd_terminal terminal = gd_terminal_look();
    const char *term = getenv("TERM");
    bool knows_sequences = term && *term && strcmp(term, "dumb") != 0;
    if (!terminal.is_terminal || top->options->json || !knows_sequences)
        return 0;
    int result = gd_screen_enter(&top->screen);
    if (result < 0)
        return result;
    top->on_screen = true;
    top->watch.waiter = (struct gd_waiter){wait_on_screen, top};
    top->watch.link.waiter = top->watch.waiter;
    return 0;
}

static int repeat(struct top *top) {
    int result = 0;
    for (unsigned n = 0; result == 0 && (top->options->count == 0 || n < top->options->count); n++) {
        int64_t next_ms = gd_now_ms() + top->options->interval_ms;
        if (n > 0) // begun with an answer
            result = gd_daemon_watch_ask(&top->watch, UINT64_MAX, &top->trouble);
        if (result == -ECANCELED)
            break;
        top->failed = result < 0;
        result = show(top);
        if (result == 0 && n + 1 != top->options->count)
            result = gd_wait_pause(&top->watch.waiter, next_ms);
    }
    return result == -ECANCELED ? 0 : result;
}

static int run(struct top *top) {
    if (gd_daemon_watch_ask(&top->watch, UINT64_MAX, &top->trouble) < 0)
        return gd_trouble_print(&top->trouble);
    int result = begin(top);
    if (result == 0)
        result = repeat(top);
    if (top->on_screen)
        gd_screen_leave(&top->screen);
    if (result < 0)
        fprintf(stderr, "gradientctl: %s\n", strerror(-result));
    return result < 0 || top->failed ? GD_EXIT_FAILED : GD_EXIT_DONE;
}

int gd_top_run(const struct gd_command *command, int n_arguments, char **arguments) {
    static const struct gd_waiter while_read = {gd_wait_while_read, NULL};
    struct gd_daemon_options options;
    struct top top = {.options = &options, .order = GD_ORDER_RATE};
    int status = gd_daemon_options_parse(command, GD_TAKES_INTERVAL, n_arguments, arguments, &options);
    if (status != 0)
        return status;
    if (gd_daemon_watch_init(&top.watch, &options, &while_read) < 0)
        return GD_EXIT_FAILED;
    status = run(&top);
    gd_daemon_watch_deinit(&top.watch);
    return status;
}
