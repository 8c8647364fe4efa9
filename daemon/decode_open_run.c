#include "decode_open_run.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "decode.h"
#include "decode_hparams.h"
#include "decode_optimizer.h"
#include "decode_selection.h"
#include "decode_streams.h"
#include "decode_thresholds.h"
#include "quota.h"
#include "text.h"

enum { DEFAULT_MAX_LAG = 5, DEFAULT_INFLIGHT = 2 };

void gd_open_run_free(struct gd_open_run *open_run) {
    if (!open_run)
        return;
    if (open_run->groups)
        for (uint32_t i = 0; i < open_run->n_groups; i++)
            free(open_run->groups[i].name);
    free(open_run->groups);
    free(open_run->parameter_groups);
    free(open_run->start_learning_rates);
    gd_group_selection_deinit(&open_run->selection);
    gd_group_series_deinit(&open_run->series);
    free(open_run->hparams.hparam);
    free(open_run);
}

uint64_t gd_open_run_bytes(const struct gd_open_run *open_run) {
    uint64_t bytes =
        sizeof(*open_run) + open_run->n_groups * (sizeof(*open_run->groups) + GD_BLOCK_BYTES) +
        open_run->n_parameter_groups * (sizeof(*open_run->parameter_groups) + sizeof(*open_run->start_learning_rates));
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        bytes += open_run->groups[i].name ? strlen(open_run->groups[i].name) + 1 : 0;
    return bytes + open_run->hparams.block_bytes + gd_group_selection_bytes(&open_run->selection) +
           gd_group_series_bytes(&open_run->series, open_run->n_groups);
}

static int read_run(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    if (!gd_text_is_run(message->run)) {
        char shown[64];
        gd_text_copy_printable(shown, sizeof(shown), message->run);
        return gd_error_set(ret_error, GD_ERROR_INVALID, "run",
                            "run is \"%s\"; it must be a relative path of components [A-Za-z0-9._=,+-] of at most %d "
                            "bytes, none of them . or .., %d bytes in all",
                            shown, GRADIENTD_NAME_BYTES_MAX, GRADIENTD_RUN_BYTES_MAX);
    }
    strcpy(open_run->run, message->run); // its length was checked

    if (!isfinite(message->wall_time))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "wall_time", "wall_time is %f, it must be finite",
                            message->wall_time);
    if (message->first_step < 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "first_step", "first_step is %lld, it must not be negative",
                            (long long)message->first_step);
    open_run->wall_time = message->wall_time;
    open_run->first_step = message->first_step;
    open_run->thinning = !message->has_thinning || message->thinning;
    open_run->labels_from_model = message->labels_from_model;
    open_run->max_lag = message->has_max_lag ? message->max_lag : DEFAULT_MAX_LAG;
    open_run->inflight = message->has_inflight ? message->inflight : DEFAULT_INFLIGHT;

    int result = gd_error_check_range("max_lag", open_run->max_lag, 1, GRADIENTD_LAG_MAX, ret_error);
    if (result == 0)
        result = gd_error_check_range("inflight", open_run->inflight, 1, GRADIENTD_INFLIGHT_MAX, ret_error);
    return result;
}

// What the wire can ask for and this daemon does not do: refused, so that nobody waits for charts that never come.
static int check_unsupported(const Gradientd__OpenRun *message, struct gd_error *ret_error) {
    const struct {
        const char *field;
        size_t entries;
    } unsupported[] = {
        {"families", message->n_families},
    };
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++)
        if (unsupported[i].entries > 0)
            return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, unsupported[i].field,
                                "%s has %zu entries; it is not supported", unsupported[i].field,
                                unsupported[i].entries);
    return 0;
}

// Reads one entry; returns its bytes, or a negative errno.
static int64_t read_group(const uint8_t *table, size_t bytes, uint32_t index, struct gd_open_run *open_run,
                          struct gd_error *ret_error) {
    size_t name_bytes = bytes >= GRADIENTD_TABLE_ENTRY_BYTES ? table[16] : 0;
    if (bytes < GRADIENTD_TABLE_ENTRY_BYTES + name_bytes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "groups", "the group table ends inside entry %u of %u", index,
                            open_run->n_groups);
    const char *name = (const char *)table + GRADIENTD_TABLE_ENTRY_BYTES;
    if (name_bytes == 0 || !gd_text_is_clean(name, name_bytes))
        return gd_error_set(
            ret_error, GD_ERROR_INVALID, "group.name",
            "the name of group %u has %zu bytes; it must be 1 to %d bytes of UTF-8 without control characters", index,
            name_bytes, GRADIENTD_NAME_BYTES_MAX);

    struct gd_group *group = &open_run->groups[index];
    group->numel = gd_read_u64le(table);
    group->parameter_group = gd_read_u32le(table + 8);
    group->step_lag = gd_read_u32le(table + 12);
    if (group->numel == 0 || group->numel > GD_ELEMENTS_MAX - open_run->elements)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "group.numel",
                            "numel of group %u is %llu; it must be at least 1, and %llu in all", index,
                            (unsigned long long)group->numel, (unsigned long long)GD_ELEMENTS_MAX);
    if (group->parameter_group >= open_run->n_parameter_groups)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "group.parameter_group",
                            "parameter_group of group %u is %u, there are %u", index, group->parameter_group,
                            open_run->n_parameter_groups);
    open_run->elements += group->numel;
    group->name = strndup(name, name_bytes);
    if (!group->name)
        return -ENOMEM;
    return (int64_t)(GRADIENTD_TABLE_ENTRY_BYTES + name_bytes);
}

// The number of groups and the table's size; their entries come with the payload.
static int read_groups(const Gradientd__OpenRun *message, const struct gd_frame *frame, struct gd_open_run *open_run,
                       struct gd_error *ret_error) {
    int result = gd_error_check_range("groups", message->groups, 1, GRADIENTD_GROUPS_MAX, ret_error);
    if (result < 0)
        return result;
    if (frame->payload_bytes > GRADIENTD_TABLE_BYTES_MAX)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "payload_bytes",
                            "payload_bytes is %u, the limit of OpenRun is %d", frame->payload_bytes,
                            GRADIENTD_TABLE_BYTES_MAX);
    open_run->groups = calloc(message->groups, sizeof(*open_run->groups));
    if (!open_run->groups)
        return -ENOMEM;
    open_run->n_groups = message->groups;
    return 0;
}

// FNV-1a, 64 bits: two OpenRuns of one trainer that differ by accident share a digest once in 2^64.
static uint64_t digest(uint64_t hash, const uint8_t *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int gd_decode_open_run(const Gradientd__OpenRun *message, const struct gd_frame *frame,
                       struct gd_open_run **ret_open_run, struct gd_error *ret_error) {
    struct gd_open_run *open_run = calloc(1, sizeof(*open_run));
    if (!open_run)
        return -ENOMEM;

    int result = read_run(message, open_run, ret_error);
    if (result == 0)
        result = gd_decode_streams(message, open_run, ret_error);
    if (result == 0)
        result = check_unsupported(message, ret_error);
    if (result == 0)
        result = gd_decode_optimizer(message, open_run, ret_error);
    if (result == 0)
        result = gd_decode_selection(message, &open_run->selection, ret_error);
    if (result == 0)
        result = gd_decode_thresholds(message->thresholds, &open_run->thresholds, ret_error);
    if (result == 0)
        result = gd_decode_hparams(message, &open_run->hparams, ret_error);
    if (result == 0)
        result = read_groups(message, frame, open_run, ret_error);
    if (result < 0) {
        gd_open_run_free(open_run);
        return result;
    }
    open_run->digest = digest(UINT64_C(0xcbf29ce484222325), frame->message, frame->message_bytes);
    *ret_open_run = open_run;
    return 0;
}

static int select_series(struct gd_open_run *open_run, struct gd_error *ret_error) {
    assert(open_run->n_groups > 0); // as read_groups() has checked
    const char **names = calloc(open_run->n_groups, sizeof(*names));
    if (!names)
        return -ENOMEM;
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        names[i] = open_run->groups[i].name;
    int result = gd_group_series_init(&open_run->series, &open_run->selection, names, open_run->n_groups, ret_error);
    free(names);
    return result;
}

int gd_open_run_read_table(struct gd_open_run *open_run, const uint8_t *table, size_t bytes,
                           struct gd_error *ret_error) {
    size_t at = 0;
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        int64_t entry_bytes = read_group(table + at, bytes - at, i, open_run, ret_error);
        if (entry_bytes < 0)
            return (int)entry_bytes;
        at += (size_t)entry_bytes;
    }
    if (at != bytes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "groups", "the group table has %zu bytes after entry %u",
                            bytes - at, open_run->n_groups);
    int result = gd_decode_streams_end(open_run, ret_error);
    if (result < 0)
        return result;
    open_run->digest = digest(open_run->digest, table, bytes);
    return select_series(open_run, ret_error);
}
