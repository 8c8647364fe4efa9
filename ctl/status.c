// gradientctl status: the daemon and its runs.
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "printable.h"
#include "run_table.h"
#include "table.h"
#include "units.h"

static bool is_named(const Gradientd__RunStatus *run, const char *name) {
    return strcmp(gd_run_name(run->run), gd_run_name(name)) == 0;
}

static void print_title(const char *title) {
    printf("  %-11s ", title);
}

static void print_text(const char *title, const char *text) {
    print_title(title);
    gd_printable_write(stdout, text);
    putchar('\n');
}

static void print_trainer(const Gradientd__RunStatus *run) {
    print_title("trainer");
    if (run->has_pid)
        printf("pid %u", run->pid);
    else
        fputs("pid not known (another pid namespace)", stdout);
    if (run->has_uid) {
        fputs(", user ", stdout);
        gd_units_write_user(stdout, run->uid);
        printf(" (uid %u)", run->uid);
    }
    puts(run->finishing ? "; closed or gone, what it submitted is being written" : "");
}

static void print_progress(const Gradientd__RunStatus *run) {
    print_title("step");
    printf(run->has_step ? "%" PRId64 : "none yet", run->step);
    printf(", %" PRIu64 " snapshots, %" PRIu64 " skipped\n", run->snapshots, run->skipped);
    print_title("rate");
    if (run->has_snapshots_per_second)
        gd_units_write_count(stdout, run->snapshots_per_second);
    fputs(run->has_snapshots_per_second ? " snapshots/s" : "not known yet", stdout);
    if (run->has_seconds_since_snapshot) {
        fputs(", the last one ", stdout);
        gd_units_write_duration(stdout, run->seconds_since_snapshot);
        fputs(" ago", stdout);
    }
    puts("");
    print_title("lag");
    printf("%" PRIu64 " of %" PRIu64 " submissions are not committed yet\n", gd_run_lag(run), run->received_sequence);
}

static void print_sizes(const Gradientd__RunStatus *run) {
    print_title("parameters");
    gd_units_write_count(stdout, (double)run->elements);
    printf(" in %u group%s\n", run->groups, run->groups == 1 ? "" : "s");
    print_title("memory");
    gd_units_write_bytes(stdout, run->memory_bytes);
    puts("");
    print_title("written");
    gd_units_write_bytes(stdout, run->event_bytes);
    if (run->event_bytes_waiting > 0) {
        fputs(", and ", stdout);
        gd_units_write_bytes(stdout, run->event_bytes_waiting);
        fputs(" that the file system has not taken yet", stdout);
    }
    puts("");
    print_text("event file", run->event_path ? run->event_path : "not known");
    print_title("attached");
    fputs("for ", stdout);
    gd_units_write_duration(stdout, run->attached_seconds);
    puts("");
}

static void print_alerts(const Gradientd__RunStatus *run, const struct gd_terminal *terminal) {
    print_title("alerts on");
    fputs(run->n_alerts_on > 0 ? gd_style_begin(terminal, GD_STYLE_PROBLEM) : "none", stdout);
    for (size_t i = 0; i < run->n_alerts_on; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        gd_printable_write(stdout, run->alerts_on[i]);
    }
    puts(run->n_alerts_on > 0 ? gd_style_end(terminal, GD_STYLE_PROBLEM) : "");
    if (!run->last_alert)
        return;
    print_title("last alert");
    gd_printable_write(stdout, run->last_alert->rule);
    printf(" %s at step %" PRId64 ": ", run->last_alert->onset ? "on" : "off", run->last_alert->step);
    gd_printable_write(stdout, run->last_alert->text ? run->last_alert->text : "");
    puts("");
}

static void print_run(const Gradientd__RunStatus *run, const struct gd_terminal *terminal) {
    fputs(gd_style_begin(terminal, GD_STYLE_TITLE), stdout);
    gd_printable_write(stdout, gd_run_name(run->run));
    puts(gd_style_end(terminal, GD_STYLE_TITLE));
    print_trainer(run);
    print_progress(run);
    print_sizes(run);
    print_alerts(run, terminal);
}

// The runs of one name: several where several users, or one in several directories, chose it.
static int print_named(const struct gd_daemon_watch *watch, const struct gd_daemon_options *options) {
    struct gd_terminal terminal = gd_terminal_look();
    size_t n = 0;
    for (size_t i = 0; i < watch->n_runs; i++) {
        if (!is_named(watch->runs[i], options->run))
            continue;
        n++;
        if (!options->json)
            print_run(watch->runs[i], &terminal);
    }
    if (options->json)
        gd_daemon_report_print_json(watch, gd_run_name(options->run));
    if (n > 0)
        return GD_EXIT_DONE;
    fputs("gradientctl: no run is named ", stderr);
    gd_printable_write(stderr, options->run);
    fprintf(stderr, ", of %zu that this user sees\n", watch->n_runs);
    return GD_EXIT_FAILED;
}

static int print_all(const struct gd_daemon_watch *watch) {
    struct gd_terminal terminal = gd_terminal_look();
    int result = gd_daemon_lines_write(watch, stdout, SIZE_MAX);
    if (result >= 0) {
        puts("");
        result = gd_run_table_write(watch, stdout, &terminal, SIZE_MAX);
    }
    if (result < 0)
        fprintf(stderr, "gradientctl: %s\n", strerror(-result));
    return result < 0 ? GD_EXIT_FAILED : GD_EXIT_DONE;
}

static int show(const struct gd_daemon_watch *watch, const struct gd_daemon_options *options) {
    if (options->run)
        return print_named(watch, options);
    if (!options->json)
        return print_all(watch);
    gd_daemon_report_print_json(watch, NULL);
    return GD_EXIT_DONE;
}

int gd_status_run(const struct gd_command *command, int n_arguments, char **arguments) {
    static const struct gd_waiter plain = {gd_wait_plain, NULL};
    struct gd_daemon_options options;
    struct gd_daemon_watch watch;
    struct gd_trouble trouble;
    int status = gd_daemon_options_parse(command, GD_TAKES_RUN, n_arguments, arguments, &options);
    if (status != 0)
        return status;
    if (gd_daemon_watch_init(&watch, &options, &plain) < 0)
        return GD_EXIT_FAILED;

    if (gd_daemon_watch_ask(&watch, UINT64_MAX, &trouble) < 0)
        status = gd_trouble_print(&trouble);
    else
        status = show(&watch, &options);
    gd_daemon_watch_deinit(&watch);
    int flush_status = gd_command_flush();
    return flush_status > status ? flush_status : status;
}
