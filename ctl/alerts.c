// gradientctl alerts: what the rules said of the runs lately, and say from now on.
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "daemon_report.h"
#include "gradientd/protocol.h"
#include "json.h"
#include "json_message.h"
#include "printable.h"
#include "table.h"
#include "units.h"

enum { POLL_MS = 500 }; // an alert is read by people

struct follower {
    struct gd_daemon_watch watch;
    const struct gd_daemon_options *options;
    struct gd_terminal terminal;
    uint64_t after; // alerts up to this number are known
    bool lost;      // the daemon has not answered the last time
    bool known;     // a daemon has answered, this one:
    uint32_t pid;
    double started;
};

// Something that is no alert, in the order in which it happened.
static void print_event(const struct follower *follower, const char *event, const char *text) {
    if (follower->options->json) {
        printf("{\"event\":\"%s\",\"text\":", event);
        gd_json_print_text(text);
        puts("}");
        return;
    }
    fputs("-- ", stdout);
    gd_printable_write(stdout, text);
    putchar('\n');
}

static void print_missed(const struct follower *follower, uint64_t count, bool all_seen) {
    char text[128];
    snprintf(text, sizeof(text), "alerts%s that are not kept any more: %s%" PRIu64, all_seen ? "" : " of all users",
             all_seen ? "" : "up to ", count);
    print_event(follower, "missed", text);
}

static void print_json_alert(const Gradientd__RecentAlert *recent) {
    fputs("{\"event\":\"alert\",", stdout);
    gd_json_print_fields(&recent->base);
    puts("}");
}

static void print_alert(const struct follower *follower, const Gradientd__RecentAlert *recent) {
    const Gradientd__Alert *alert = recent->alert;
    enum gd_style style = alert->onset ? GD_STYLE_PROBLEM : GD_STYLE_GOOD;
    gd_units_write_time(stdout, recent->time);
    fputs("  ", stdout);
    gd_printable_write(stdout, gd_run_name(recent->run));
    if (recent->has_uid && follower->watch.first->sees_all) {
        fputs(" (", stdout);
        gd_units_write_user(stdout, recent->uid);
        putchar(')');
    }
    printf("  step %" PRId64 "  %s", alert->step, gd_style_begin(&follower->terminal, style));
    gd_printable_write(stdout, alert->rule);
    printf(" %s%s", alert->onset ? "on" : "off", gd_style_end(&follower->terminal, style));
    fputs(alert->text ? "  " : "", stdout);
    gd_printable_write(stdout, alert->text ? alert->text : "");
    putchar('\n');
}

// Prints what is new. Whoever sees all users' alerts sees each number; others have gaps where alerts are not theirs.
static void print_alerts(struct follower *follower) {
    const Gradientd__Status *status = follower->watch.first;
    uint64_t last = status->last_alert_number, after = follower->after;
    if (!status->sees_all && last > after + GRADIENTD_RECENT_ALERTS)
        print_missed(follower, last - after - GRADIENTD_RECENT_ALERTS, false);
    for (size_t i = 0; i < status->n_alerts; i++) {
        const Gradientd__RecentAlert *recent = status->alerts[i];
        if (status->sees_all && recent->number > after + 1)
            print_missed(follower, recent->number - after - 1, true);
        after = recent->number;
        if (follower->options->json)
            print_json_alert(recent);
        else
            print_alert(follower, recent);
    }
    follower->after = last > after ? last : after;
}

// Whether another daemon answers than the last time: it counts from 1.
static bool take_daemon(struct follower *follower) {
    const Gradientd__DaemonStatus *daemon = follower->watch.daemon;
    bool other = follower->known && (daemon->pid != follower->pid || daemon->started > follower->started ||
                                     daemon->started < follower->started);
    follower->known = true;
    follower->pid = daemon->pid;
    follower->started = daemon->started;
    return other;
}

static void say_back(struct follower *follower, bool other) {
    char text[64];
    snprintf(text, sizeof(text), other ? "another daemon answers, pid %u" : "the daemon answers again, pid %u",
             follower->pid);
    if (other || follower->lost)
        print_event(follower, other ? "daemon_started" : "daemon_back", text);
    follower->lost = false;
}

// Asks once and prints what is new. Returns 0 or a negative errno.
static int ask(struct follower *follower, struct gd_trouble *ret_trouble) {
    int result = gd_daemon_watch_ask(&follower->watch, follower->after, ret_trouble);
    if (result < 0)
        return result;
    bool other = take_daemon(follower);
    say_back(follower, other);
    if (other) {
        follower->after = 0;
        result = gd_daemon_watch_ask(&follower->watch, follower->after, ret_trouble);
    }
    if (result == 0)
        print_alerts(follower);
    return result;
}

// Goes on until nobody reads the output, or it cannot be written.
static int follow(struct follower *follower) {
    struct gd_trouble trouble;
    int result = 0;
    while (result != -ECANCELED && gd_command_flush() == GD_EXIT_DONE) {
        result = gd_wait_pause(&follower->watch.waiter, gd_now_ms() + POLL_MS);
        if (result == 0)
            result = ask(follower, &trouble);
        if (result < 0 && result != -ECANCELED && !follower->lost) {
            print_event(follower, "daemon_lost", trouble.text);
            follower->lost = true;
        }
    }
    return GD_EXIT_DONE;
}

int gd_alerts_run(const struct gd_command *command, int n_arguments, char **arguments) {
    static const struct gd_waiter while_read = {gd_wait_while_read, NULL};
    struct gd_daemon_options options;
    struct gd_trouble trouble;
    int status = gd_daemon_options_parse(command, GD_TAKES_FOLLOW, n_arguments, arguments, &options);
    if (status != 0)
        return status;

    struct follower follower = {.options = &options, .terminal = gd_terminal_look()};
    if (gd_daemon_watch_init(&follower.watch, &options, &while_read) < 0)
        return GD_EXIT_FAILED;
    if (ask(&follower, &trouble) < 0)
        status = gd_trouble_print(&trouble);
    else if (options.follow)
        status = follow(&follower);
    gd_daemon_watch_deinit(&follower.watch);
    int flush_status = gd_command_flush();
    return flush_status > status ? flush_status : status;
}
