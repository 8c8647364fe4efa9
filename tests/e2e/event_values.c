#include "event_values.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "tensorboard.pb-c.h"

static void add_value(struct event_values *values, const Tensorboard__Event *event,
                      const Tensorboard__Summary__Value *value) {
    if (value->value_case != TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE) // a histogram, a text, ...
        return;
    if (values->n_values == values->capacity) {
        values->capacity = values->capacity ? 2 * values->capacity : 64;
        values->values = reallocarray(values->values, values->capacity, sizeof(*values->values));
        cr_assert(values->values);
    }
    struct event_value *added = &values->values[values->n_values++];
    *added = (struct event_value){.wall_time = event->wall_time, .step = event->step, .value = value->simple_value};
    cr_assert(strlen(value->tag) < sizeof(added->tag));
    strcpy(added->tag, value->tag);
}

static void add_event(struct event_values *values, const uint8_t *data, size_t bytes) {
    Tensorboard__Event *event = tensorboard__event__unpack(NULL, bytes, data);
    cr_assert(event, "a record holds no event");
    if (event->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY)
        for (size_t i = 0; i < event->summary->n_value; i++)
            add_value(values, event, event->summary->value[i]);
    if (event->what_case == TENSORBOARD__EVENT__WHAT_SESSION_LOG) {
        bool start = event->session_log->status == TENSORBOARD__SESSION_LOG__STATUS__START;
        values->starts += start;
        values->stops += event->session_log->status == TENSORBOARD__SESSION_LOG__STATUS__STOP;
        if (start)
            values->start_step = event->step;
    }
    tensorboard__event__free_unpacked(event, NULL);
}

void event_values_read(const char *path, struct event_values *ret_values) {
    struct gd_record_reader reader;
    const uint8_t *data;
    size_t bytes;
    int result;

    *ret_values = (struct event_values){0};
    FILE *stream = fopen(path, "rbe");
    cr_assert(stream, "%s: %s", path, strerror(errno));
    gd_record_reader_init(&reader, stream);
    while ((result = gd_record_read(&reader, &data, &bytes)) == GD_RECORD_READ)
        add_event(ret_values, data, bytes);
    cr_assert(result == GD_RECORD_END || result == GD_RECORD_TORN, "%s is damaged: %s", path, reader.reason);
    ret_values->whole = result == GD_RECORD_END;
    gd_record_reader_deinit(&reader);
    fclose(stream);
}

void event_values_free(struct event_values *values) {
    free(values->values);
    *values = (struct event_values){0};
}

const struct event_value *event_values_find(const struct event_values *values, const char *tag, int64_t step) {
    const struct event_value *found = NULL;
    for (size_t i = 0; i < values->n_values; i++) {
        if (values->values[i].step != step || strcmp(values->values[i].tag, tag) != 0)
            continue;
        cr_assert(!found, "%s has two values at step %lld", tag, (long long)step);
        found = &values->values[i];
    }
    return found;
}

size_t event_values_count(const struct event_values *values, const char *tag) {
    size_t count = 0;
    for (size_t i = 0; i < values->n_values; i++)
        count += strcmp(values->values[i].tag, tag) == 0;
    return count;
}

bool event_values_ended(const void *context) {
    struct event_values values;
    event_values_read(context, &values);
    bool ended = values.whole && values.stops > 0;
    event_values_free(&values);
    return ended;
}
