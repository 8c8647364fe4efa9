#include <stdio.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "json_message.h"
#include "run_table.h"

enum { TIME_DIGITS = 17 };

static void print_runs(const struct gd_daemon_watch *watch, const char *run) {
    const char *before = "";
    fputs("\"runs\":[", stdout);
    for (size_t i = 0; i < watch->n_runs; i++) {
        if (run && strcmp(gd_run_name(watch->runs[i]->run), run) != 0)
            continue;
        fputs(before, stdout);
        gd_json_print_message(&watch->runs[i]->base);
        before = ",";
    }
    putchar(']');
}

static void print_users(const struct gd_daemon_watch *watch) {
    fputs("\"users\":[", stdout);
    for (size_t i = 0; i < watch->first->n_users; i++) {
        if (i > 0)
            putchar(',');
        gd_json_print_message(&watch->first->users[i]->base);
    }
    putchar(']');
}

void gd_daemon_report_print_json(const struct gd_daemon_watch *watch, const char *run) {
    const struct gd_socket_search *search = &watch->link.search;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    fputs("{\"time\":", stdout);
    gd_json_print_number((double)now.tv_sec + (double)now.tv_nsec * 1e-9, TIME_DIGITS);
    fputs(",\"socket\":", stdout);
    gd_json_print_text(search->n > 0 ? search->attempts[search->n - 1].path : "");
    printf(",\"sees_all\":%s,\"daemon\":", watch->first->sees_all ? "true" : "false");
    gd_json_print_message(&watch->daemon->base);
    putchar(',');
    print_users(watch);
    putchar(',');
    print_runs(watch, run);
    puts("}");
}
