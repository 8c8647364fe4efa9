#include "run_table.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "printable.h"
#include "table.h"
#include "units.h"

enum { NAME_COLUMNS_MIN = 12, ALERT_COLUMNS_MIN = 12 };

static const struct gd_column columns[] = {
    {"RUN", false, NAME_COLUMNS_MIN},
    {"USER", false, 0},
    {"PID", true, 0},
    {"STEP", true, 0},
    {"RATE", true, 0},
    {"LAG", true, 0},
    {"SKIPPED", true, 0},
    {"MEMORY", true, 0},
    {"WRITTEN", true, 0},
    {"ALERT", false, ALERT_COLUMNS_MIN},
};

enum { N_COLUMNS = sizeof(columns) / sizeof(columns[0]) };

static int compare_rates(const Gradientd__RunStatus *a, const Gradientd__RunStatus *b) {
    double left = a->has_snapshots_per_second ? a->snapshots_per_second : -1.0;
    double right = b->has_snapshots_per_second ? b->snapshots_per_second : -1.0;
    return (left < right) - (left > right);
}

static int compare_numbers(uint64_t left, uint64_t right) {
    return (left > right) - (left < right);
}

static int compare(const void *left, const void *right, void *context) {
    const Gradientd__RunStatus *a = *(Gradientd__RunStatus *const *)left, *b = *(Gradientd__RunStatus *const *)right;
    enum gd_run_order order = *(enum gd_run_order *)context;
    int result = 0;
    if (order == GD_ORDER_RATE)
        result = compare_rates(a, b);
    else if (order == GD_ORDER_WRITTEN)
        result = compare_numbers(b->event_bytes, a->event_bytes);
    else if (order == GD_ORDER_MEMORY)
        result = compare_numbers(b->memory_bytes, a->memory_bytes);
    else if (order == GD_ORDER_NAME)
        result = strcmp(a->run, b->run);
    return result != 0 ? result : compare_numbers(a->number, b->number);
}

void gd_run_table_sort(struct gd_daemon_watch *watch, enum gd_run_order order) {
    if (watch->n_runs > 1)
        qsort_r(watch->runs, watch->n_runs, sizeof(watch->runs[0]), compare, &order);
}

static void write_refused(FILE *out, const Gradientd__DaemonStatus *daemon) {
    const char *before = "; refused: ";
    for (size_t i = 0; i < daemon->n_refused; i++) {
        const Gradientd__Refusals *refused = daemon->refused[i];
        const ProtobufCEnumValue *code =
            protobuf_c_enum_descriptor_get_value(&gradientd__error_code__descriptor, (int)refused->code);
        if (refused->count == 0)
            continue;
        fputs(before, out);
        gd_units_write_count(out, (double)refused->count);
        fprintf(out, " %s", code ? code->name : "?");
        before = ", ";
    }
}

static void write_process(FILE *out, const Gradientd__DaemonStatus *daemon) {
    fputs("gradientd ", out);
    gd_printable_write(out, daemon->version);
    if (daemon->has_pid)
        fprintf(out, ", pid %u", daemon->pid);
    if (daemon->has_uid) {
        fputs(", user ", out);
        gd_units_write_user(out, daemon->uid);
    }
    if (daemon->has_started) {
        fputs(", since ", out);
        gd_units_write_time(out, daemon->started);
    }
    fputs(", at ", out);
}

static void write_machine(FILE *out, const Gradientd__DaemonStatus *daemon) {
    fprintf(out, "%u worker%s, kernels ", daemon->workers, daemon->workers == 1 ? "" : "s");
    gd_printable_write(out, daemon->kernels ? daemon->kernels : "?");
    fputs(", ", out);
    gd_units_write_bytes(out, daemon->resident_bytes);
    fprintf(out, " resident, %u connection%s, %u run%s", daemon->connections, daemon->connections == 1 ? "" : "s",
            daemon->runs, daemon->runs == 1 ? "" : "s");
}

static void write_totals(FILE *out, const Gradientd__DaemonStatus *daemon) {
    gd_units_write_count(out, (double)daemon->snapshots);
    fputs(" snapshots of ", out);
    gd_units_write_bytes(out, daemon->element_bytes);
    fputs(", ", out);
    gd_units_write_count(out, (double)daemon->skipped);
    fputs(" skipped, ", out);
    gd_units_write_bytes(out, daemon->event_bytes);
    fputs(" written", out);
    if (daemon->write_errors > 0)
        fprintf(out, ", %" PRIu64 " write errors", daemon->write_errors);
    write_refused(out, daemon);
}

static void write_line(FILE *out, char *line, size_t columns_max) {
    gd_printable_write_cut(out, line, columns_max);
    putc('\n', out);
}

static void write_lines(const struct gd_daemon_watch *watch, FILE *out) {
    const struct gd_socket_search *search = &watch->link.search;
    write_process(out, watch->daemon);
    if (search->n > 0)
        gd_printable_write(out, search->attempts[search->n - 1].path);
    putc('\n', out);
    write_machine(out, watch->daemon);
    fprintf(out, " of %zu user%s%s\n", watch->first->n_users, watch->first->n_users == 1 ? "" : "s",
            watch->first->sees_all ? "" : ", your own shown: root and the daemon's admin group see all");
    write_totals(out, watch->daemon);
    putc('\n', out);
}

int gd_daemon_lines_write(const struct gd_daemon_watch *watch, FILE *out, size_t columns_max) {
    char *text = NULL, *rest;
    size_t bytes;
    FILE *lines = open_memstream(&text, &bytes);
    if (!lines)
        return -ENOMEM;
    write_lines(watch, lines);
    bool failed = ferror(lines) != 0;
    if (fclose(lines) != 0 || failed) {
        free(text);
        return -ENOMEM;
    }
    int n = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++)
        write_line(out, line, columns_max);
    free(text);
    return n;
}

// What a run's last column says: a rule that is on, or the last one that was.
static enum gd_style write_alert(FILE *out, const Gradientd__RunStatus *run) {
    const Gradientd__Alert *last = run->last_alert;
    bool last_is_on = last && last->onset;
    const char *rule = last_is_on ? last->rule : run->n_alerts_on > 0 ? run->alerts_on[0] : NULL;
    if (rule) {
        gd_printable_write(out, rule);
        if (last_is_on)
            fprintf(out, " at %" PRId64, last->step);
        if (run->n_alerts_on > 1)
            fprintf(out, ", %zu more", run->n_alerts_on - 1);
        return GD_STYLE_PROBLEM;
    }
    if (last) {
        gd_printable_write(out, last->rule);
        fprintf(out, " over at %" PRId64, last->step);
    }
    return GD_STYLE_PLAIN;
}

static void add_run(struct gd_table *table, const Gradientd__RunStatus *run) {
    FILE *out = table->cells;
    gd_printable_write(out, gd_run_name(run->run));
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    if (run->has_uid)
        gd_units_write_user(out, run->uid);
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    fprintf(out, run->has_pid ? "%u" : "?", run->pid);
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    fprintf(out, run->has_step ? "%" PRId64 : "-", run->step);
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    if (run->has_snapshots_per_second)
        gd_units_write_count(out, run->snapshots_per_second);
    fputs(run->has_snapshots_per_second ? "/s" : "-", out);
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    fprintf(out, "%" PRIu64, gd_run_lag(run));
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    gd_units_write_count(out, (double)run->skipped);
    gd_table_end_cell(table, run->skipped > 0 ? GD_STYLE_WARNING : GD_STYLE_PLAIN);
    gd_units_write_bytes(out, run->memory_bytes);
    gd_table_end_cell(table, GD_STYLE_PLAIN);
    gd_units_write_bytes(out, run->event_bytes);
    gd_table_end_cell(table, run->event_bytes_waiting > 0 ? GD_STYLE_WARNING : GD_STYLE_PLAIN);
    gd_table_end_cell(table, write_alert(out, run));
}

int gd_run_table_write(const struct gd_daemon_watch *watch, FILE *out, const struct gd_terminal *terminal,
                       size_t rows_max) {
    struct gd_table table;
    int result = gd_table_init(&table, columns, N_COLUMNS);
    if (result < 0)
        return result;
    for (size_t i = 0; i < watch->n_runs && i < rows_max; i++)
        add_run(&table, watch->runs[i]);
    result = gd_table_print(&table, out, terminal, rows_max);
    gd_table_deinit(&table);
    return result;
}
