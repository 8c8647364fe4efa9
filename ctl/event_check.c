#include "event_check.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "gradientd/protocol.h"
#include "tags.h"
#include "text.h"

#define FILE_VERSION "brain.Event:2"
#define OWN_WRITER "gradientd"

enum { SHOWN_BYTES = 100 }; // of a text in a message

void gd_event_check_init(struct gd_event_check *check, struct gd_faults *faults) {
    *check = (struct gd_event_check){.faults = faults};
}

void gd_event_check_deinit(struct gd_event_check *check) {
    gd_tag_table_deinit(&check->tags);
}

static void check_first(struct gd_event_check *check, uint64_t offset, const Tensorboard__Event *event) {
    if (event->what_case != TENSORBOARD__EVENT__WHAT_FILE_VERSION) {
        gd_faults_add(check->faults, offset, "the first event is no file_version, which must be \"" FILE_VERSION "\"");
        return;
    }
    char version[SHOWN_BYTES];
    gd_text_copy_printable(version, sizeof(version), event->file_version);
    if (strcmp(event->file_version, FILE_VERSION) != 0)
        gd_faults_add(check->faults, offset, "file_version is \"%s\", it must be \"" FILE_VERSION "\"", version);

    const Tensorboard__SourceMetadata *source = event->source_metadata;
    check->by_gradientd = source && source->writer && strcmp(source->writer, OWN_WRITER) == 0;
}

static void check_name(struct gd_event_check *check, uint64_t offset, const char *name) {
    size_t bytes = strlen(name), clean_bytes = gd_text_clean_bytes(name, bytes);
    char shown[SHOWN_BYTES];
    gd_text_copy_printable(shown, sizeof(shown), name);
    if (bytes == 0 || bytes > GRADIENTD_NAME_BYTES_MAX)
        gd_faults_add(check->faults, offset, "tag \"%s\" is %zu bytes long, 1 to %d are allowed", shown, bytes,
                      GRADIENTD_NAME_BYTES_MAX);
    if (clean_bytes < bytes)
        gd_faults_add(check->faults, offset, "tag \"%s\": byte 0x%02x at %zu is a control character or no UTF-8", shown,
                      (unsigned char)name[clean_bytes], clean_bytes);
}

// What tells TensorBoard's plugins about the run, whatever its steps are.
static bool is_setting(const char *name) {
    return strcmp(name, GD_TAG_LAYOUT) == 0 || strncmp(name, GD_TAGS_SESSION, strlen(GD_TAGS_SESSION)) == 0;
}

static void note_step(struct gd_event_check *check, int64_t step) {
    if (!check->has_steps || step < check->step_min)
        check->step_min = step;
    if (!check->has_steps || step > check->step_max)
        check->step_max = step;
    check->has_steps = true;
}

// TensorBoard's default reader drops what a tag had at and after a step that comes again. Other writers leave steps to
// their users, and their files are legal; gradientd never lets one fall.
static void step_does_not_rise(struct gd_event_check *check, uint64_t offset, int64_t step,
                               const struct gd_known_tag *tag) {
    if (check->by_gradientd) {
        char shown[SHOWN_BYTES];
        gd_text_copy_printable(shown, sizeof(shown), tag->name);
        gd_faults_add(check->faults, offset, "tag \"%s\": step %" PRId64 " must be above the tag's last one, %" PRId64,
                      shown, step, tag->last_step);
    } else if (check->n_fallen++ == 0) {
        check->fallen_offset = offset;
    }
}

static void check_step(struct gd_event_check *check, uint64_t offset, int64_t step, const char *name) {
    struct gd_known_tag *tag;
    int result = gd_tag_table_use(&check->tags, name, &tag);
    if (result == -ENOSPC) {
        gd_faults_add(check->faults, offset, "there are more than %d tags, the steps of the others are not checked",
                      GD_TAG_TABLE_TAGS_MAX);
        return;
    }
    if (result < 0) {
        gd_faults_add(check->faults, offset, "there is no memory for another tag, its steps are not checked");
        return;
    }
    if (tag->n_values++ > 0 && step <= tag->last_step)
        step_does_not_rise(check, offset, step, tag);
    tag->last_step = step;
}

static void check_summary(struct gd_event_check *check, uint64_t offset, const Tensorboard__Event *event) {
    if (check->by_gradientd && check->session == GD_SESSION_NONE) {
        gd_faults_add(check->faults, offset, "values come before SessionLog START");
        check->session = GD_SESSION_UNKNOWN;
    }
    for (size_t i = 0; i < event->summary->n_value; i++) {
        const char *name = event->summary->value[i]->tag ? event->summary->value[i]->tag : "";
        if (!is_setting(name))
            note_step(check, event->step);
        check_name(check, offset, name);
        check_step(check, offset, event->step, name);
    }
}

// gradientd writes one START ahead of all values, and a STOP after them when the run ends in order.
static void check_session_log(struct gd_event_check *check, uint64_t offset, const Tensorboard__Event *event) {
    Tensorboard__SessionLog__Status status = event->session_log->status;
    bool may_start = check->session == GD_SESSION_NONE || check->session == GD_SESSION_UNKNOWN;
    if (may_start && status == TENSORBOARD__SESSION_LOG__STATUS__START) {
        check->session = GD_SESSION_STARTED;
        return;
    }
    if (check->session == GD_SESSION_NONE || status != TENSORBOARD__SESSION_LOG__STATUS__STOP)
        gd_faults_add(check->faults, offset, "SessionLog's status is %d, it must be %s here", (int)status,
                      check->session == GD_SESSION_NONE ? "START, 1" : "STOP, 2");
    check->session = GD_SESSION_STOPPED;
}

void gd_event_check_record(struct gd_event_check *check, uint64_t offset, const Tensorboard__Event *event) {
    bool is_first = check->n_records++ == 0;
    if (!event) {
        if (check->session == GD_SESSION_NONE)
            check->session = GD_SESSION_UNKNOWN;
        return;
    }
    if (is_first)
        check_first(check, offset, event);
    if (!isfinite(event->wall_time))
        gd_faults_add(check->faults, offset, "wall_time is %g, it must be finite", event->wall_time);
    if (check->by_gradientd && check->session == GD_SESSION_STOPPED)
        gd_faults_add(check->faults, offset, "a record comes after SessionLog STOP");

    if (event->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY)
        check_summary(check, offset, event);
    else if (event->what_case == TENSORBOARD__EVENT__WHAT_SESSION_LOG && check->by_gradientd)
        check_session_log(check, offset, event);
}
