// A daemon that dies between any two stores of a commit leaves memory from which another one writes the same file.
#include "run_resume.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run_rig.h"
#include "support.h"

enum { MESSAGES = 20, FILE_BYTES_MAX = 1 << 20 }; // 1 to MESSAGES, then CloseRun

// What a whole run leaves behind: its file, and its memory after each commit.
static uint8_t *images[MESSAGES + 1];
static uint8_t whole_file[FILE_BYTES_MAX];
static size_t whole_bytes;
static uint64_t appended[MESSAGES + 1]; // bytes of the file after each commit
static uint8_t *scratch;                // an image to change
static struct gd_layout layout;         // of images

static struct gd_open_run *open_run_of(enum gd_rule rule) {
    struct gd_open_run *open_run = small_open_run();
    open_run->adam.rule = rule;
    open_run->adam.maximum_of = rule == GD_RULE_AMSGRAD ? GD_MAXIMUM_RAW_THEN_CORRECTED : 0;
    open_run->parameter_groups[0].beta2 = 0.875;
    open_run->n_shadows = 2;
    open_run->shadows[0] = gd_adam_shadow(&open_run->adam, GD_RULE_ADAFOM);
    open_run->shadows[1] = gd_adam_shadow(&open_run->adam, GD_RULE_ADAMW);
    show_groups(open_run, GD_PER_GROUP_ALWAYS, 0);
    open_run->digest = 12345;
    return open_run;
}

static void lay_out(enum gd_rule rule) {
    struct gd_open_run *open_run = open_run_of(rule);
    gd_layout_init(&layout, open_run);
    gd_open_run_free(open_run);
}

static void fill_slot_of_step(uint32_t slot, int64_t step) {
    float *elements = (float *)gd_memory_slot(&run->memory, slot);
    uint64_t seed = (uint64_t)step;
    for (uint64_t i = 0; i < run->open_run->elements; i++)
        elements[i] = random_gradient(&seed);
}

static uint32_t free_slot(void) {
    uint32_t slot = 0;
    while (run->slot_use[slot] != GD_SLOT_FREE)
        slot++;
    return slot;
}

// Message `sequence` of the run: snapshots, some not applied, some with a group absent, and scalars between them.
static struct block *new_message(uint64_t sequence) {
    int64_t step = (int64_t)sequence + 10000; // where thinning has begun
    if (sequence % 6 == 0) {
        struct block *scalars = new_block(GD_SUBMISSION_SCALARS, sequence, step);
        add_scalar(scalars, sequence > 8 ? "validation/late" : "validation/loss", (float)sequence);
        return scalars;
    }
    uint32_t slot = free_slot();
    fill_slot_of_step(slot, step);
    struct block *snapshot = new_snapshot(sequence, step, slot);
    add_scalar(snapshot, "train/loss", 1.0f / (float)sequence);
    snapshot->submission.applied = sequence % 7 != 3;
    snapshot->submission.skipped = sequence / 4;
    snapshot->rates[0].learning_rate = 0.1 / (double)sequence;
    if (sequence != 4) {
        const double per_group[GROUPS] = {1.0 / (double)sequence, 2.0, 4.0};
        snapshot->submission.batch_size = sequence % 8 < 4 ? 64.0 : 32.0;
        snapshot->submission.clip_factor = sequence % 3 ? 1.0 : 0.5;
        add_squared_norm(snapshot, 8.0, 7.0, per_group);
    }
    if (sequence % 5 == 2) {
        snapshot->bitmap[0] = 5; // not group 1
        snapshot->submission.groups_present = snapshot->bitmap;
        snapshot->submission.groups_present_bytes = 1;
    }
    return snapshot;
}

static void send_from(uint64_t sequence) {
    for (; sequence <= MESSAGES; sequence++) {
        submit_good(new_message(sequence));
        work();
    }
    submit_close(MESSAGES + 1);
    work();
}

static void load_image(uint8_t *image) {
    cr_assert_eq(pread(memory_fd, image, run->layout.total_bytes, 0), (ssize_t)run->layout.total_bytes);
}

static uint8_t *new_image(void) {
    uint8_t *image = malloc(run->layout.total_bytes);
    cr_assert_not_null(image);
    return image;
}

static size_t read_file(uint8_t content[FILE_BYTES_MAX]) {
    ssize_t bytes = pread(event_fd, content, FILE_BYTES_MAX, 0);
    cr_assert(bytes >= 0 && bytes < FILE_BYTES_MAX);
    return (size_t)bytes;
}

// The run as it goes when nobody dies.
static void record(enum gd_rule rule) {
    start(open_run_of(rule));
    scratch = new_image();
    for (uint64_t sequence = 0; sequence <= MESSAGES; sequence++) {
        if (sequence > 0) {
            submit_good(new_message(sequence));
            work();
        }
        load_image(images[sequence] = new_image());
        appended[sequence] = run->appended_bytes;
    }
    submit_close(MESSAGES + 1);
    read_events();
    free_events();
    whole_bytes = read_file(whole_file);
    free_run();
}

static void forget(void) {
    for (int i = 0; i <= MESSAGES; i++)
        free(images[i]);
    free(scratch);
}

// Of what was written, the bytes that the file still has when a run goes on.
static uint64_t kept_bytes = UINT64_MAX;

// A new run on `image`, of whose file `written` bytes were written. Returns what the attachment returns.
static int attach_image(const uint8_t *image, enum gd_rule rule, uint64_t written) {
    new_run(open_run_of(rule));
    cr_assert_eq(pwrite(memory_fd, image, run->layout.total_bytes, 0), (ssize_t)run->layout.total_bytes);
    cr_assert_eq(pwrite(memory_fd, &written, sizeof(written), (off_t)run->layout.written_offset), sizeof(written));
    uint64_t kept = written < kept_bytes ? written : kept_bytes;
    cr_assert_eq(pwrite(event_fd, whole_file, kept, 0), (ssize_t)kept);
    run->received_step = -1;
    return attach();
}

// Goes on from `image`, which holds commit `committed`, and compares the file.
static void expect_same_file(const uint8_t *image, enum gd_rule rule, uint64_t committed, uint64_t written) {
    static uint8_t content[FILE_BYTES_MAX];
    cr_assert_eq(attach_image(image, rule, written), 0, "commit %" PRIu64 ": %s", committed, error.text);
    cr_assert_eq(run->state->sequence, committed);
    cr_assert_eq(run->received_sequence, committed);
    send_from(committed + 1);
    read_events();
    free_events();
    size_t bytes = read_file(content);
    cr_assert_eq(bytes, whole_bytes, "commit %" PRIu64 ", %" PRIu64 " bytes written", committed, written);
    cr_assert_arr_eq(content, whole_file, bytes);
    free_run();
}

static const enum gd_rule rules[] = {GD_RULE_SGD, GD_RULE_ADAM, GD_RULE_AMSGRAD, GD_RULE_ADAGRAD};

#define FOR_EACH_RULE(i) for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)

Test(resume, every_commit_can_be_gone_on_from) {
    FOR_EACH_RULE(i) {
        record(rules[i]);
        for (uint64_t n = 0; n <= MESSAGES; n++) {
            expect_same_file(images[n], rules[i], n, appended[n]);
            expect_same_file(images[n], rules[i], n, appended[n] / 2); // in the middle of a record
            expect_same_file(images[n], rules[i], n, 0);
        }
        forget();
    }
}

// A part of the memory that a commit changes.
struct region {
    uint64_t offset;
    uint64_t bytes;
};

static void copy_region(uint8_t *to, const uint8_t *from, struct region region) {
    memcpy(to + region.offset, from + region.offset, region.bytes);
}

// Commit n as far as its stores before the header: whatever of them is there, the commit before is what counts.
static void tear_before_header(uint64_t n, enum gd_rule rule) {
    lay_out(rule);
    uint64_t outbox_at = layout.outbox_offset + appended[n - 1] % layout.outbox_bytes;
    const struct region regions[] = {
        {layout.slots_offset, layout.slots * layout.slot_stride_bytes},
        {layout.second_moment_offset[0][0][0], layout.slots_offset - layout.second_moment_offset[0][0][0]},
        {layout.group_norms_offset, layout.slots * GROUPS * sizeof(double)},
        {layout.slot_sums_offset, layout.slots * layout.slot_sums_bytes},
        {layout.user_tags_offset, 3 * (GRADIENTD_NAME_BYTES_MAX + 1)},
        {layout.state_offset[n % 2], layout.state_bytes / 2},
        {layout.state_offset[n % 2], layout.state_bytes},
        {outbox_at, appended[n] - appended[n - 1]},
    };

    memcpy(scratch, images[n - 1], layout.total_bytes);
    for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]); i++) {
        copy_region(scratch, images[n], regions[i]);
        expect_same_file(scratch, rule, n - 1, appended[n - 1]);
    }
    // the header's copy, byte by byte: not before the last byte that changes does the commit count
    uint64_t header = layout.header_offset[n % 2];
    for (uint64_t bytes = 1; bytes <= sizeof(struct gd_memory_header); bytes += 5) {
        copy_region(scratch, images[n], (struct region){header, bytes});
        bool whole = memcmp(scratch + header, images[n] + header, sizeof(struct gd_memory_header)) == 0;
        expect_same_file(scratch, rule, whole ? n : n - 1, appended[n - 1]);
    }
    copy_region(scratch, images[n], (struct region){header, sizeof(struct gd_memory_header)});
    expect_same_file(scratch, rule, n, appended[n - 1]); // neither slot words nor the commits word
}

Test(resume, a_commit_that_was_not_finished_is_made_again) {
    record(GD_RULE_AMSGRAD);
    for (uint64_t n = 1; n <= MESSAGES; n++)
        tear_before_header(n, GD_RULE_AMSGRAD);
    forget();
}

// The daemon dies in the very first commit, at any byte of its header.
Test(resume, a_run_whose_first_commit_is_torn_begins_anew) {
    record(GD_RULE_ADAM);
    lay_out(GD_RULE_ADAM);
    for (size_t bytes = 0; bytes < sizeof(struct gd_memory_header); bytes += 3) {
        memset(scratch, 0, layout.total_bytes);
        copy_region(scratch, images[0], (struct region){layout.state_offset[0], layout.state_bytes});
        copy_region(scratch, images[0], (struct region){layout.outbox_offset, appended[0]});
        copy_region(scratch, images[0], (struct region){layout.header_offset[0], bytes});
        expect_same_file(scratch, GD_RULE_ADAM, 0, 0);
    }
    forget();
}

// ---- Memory that cannot be gone on with -----------------------------------------------------------------------------

static struct gd_memory_header *header_copy(int i) {
    return (void *)(scratch + layout.header_offset[i]);
}

static struct gd_run_state *state_half(int i) {
    return (void *)(scratch + layout.state_offset[i]);
}

static void sign(int i) {
    sign_image(scratch, &layout, i);
}

static void flip(void *byte) {
    *(uint8_t *)byte ^= 0x10;
}

enum { LATEST = MESSAGES % 2 };

#define LATEST_HEADER header_copy(LATEST)
#define LATEST_STATE state_half(LATEST)
// The first of the user tags' last steps, with which the state ends.
#define TAG_STEP ((int64_t *)(void *)((uint8_t *)LATEST_STATE + layout.state_bytes) - GRADIENTD_USER_TAGS_MAX)
#define RATES gd_run_state_rates(LATEST_STATE, GROUPS)
#define SHADOWS ((struct gd_shadow_state *)(RATES + 1))
#define TAG(i) ((char *)scratch + layout.user_tags_offset + (i) * (GRADIENTD_NAME_BYTES_MAX + 1))

#define SPOIL(name, ...)                                                                                               \
    static void name(void) {                                                                                           \
        __VA_ARGS__;                                                                                                   \
    }
#define FORGE(name, ...) SPOIL(name, __VA_ARGS__; sign(LATEST))

SPOIL(both_headers, flip(header_copy(0)); flip(&header_copy(1)->sequence))
SPOIL(no_header, memset(header_copy(0), 0x55, 64); memset(header_copy(1), 0x55, 64))
SPOIL(version, LATEST_HEADER->layout_version++; sign(LATEST))
SPOIL(version_unsigned, header_copy(0)->layout_version = 7; header_copy(1)->layout_version = 7)
SPOIL(latest_state, flip(LATEST_STATE))
SPOIL(digest, LATEST_HEADER->open_run_digest++; sign(LATEST))
SPOIL(total, LATEST_HEADER->total_bytes++; sign(LATEST))
SPOIL(appended_low, LATEST_HEADER->appended_bytes = 1; sign(LATEST))
SPOIL(appended_high, LATEST_HEADER->appended_bytes = UINT64_MAX; sign(LATEST))
FORGE(state_sequence, LATEST_STATE->sequence++)
FORGE(step, LATEST_STATE->step = -2)
FORGE(wall_time, LATEST_STATE->wall_time = (double)NAN)
FORGE(slot_ahead, LATEST_STATE->slots[0].in_use = 1; LATEST_STATE->slots[0].step = INT64_MAX)
FORGE(slot_negative, LATEST_STATE->slots[0].in_use = 1; LATEST_STATE->slots[0].step = INT64_MIN)
FORGE(slot_sequence, LATEST_STATE->slots[0].in_use = 1; LATEST_STATE->slots[0].sequence = UINT64_MAX)
FORGE(slot_use, LATEST_STATE->slots[0].in_use = 2)
FORGE(slots_full, for (int i = 0; i < GD_SLOTS_MAX; i++) LATEST_STATE->slots[i] = (struct gd_slot_state){.in_use = 1})
FORGE(tags_many, LATEST_STATE->user_tags = UINT32_MAX)
FORGE(tags_more, LATEST_STATE->user_tags++)
FORGE(tag_step, *TAG_STEP = -1)
FORGE(tag_empty, TAG(0)[0] = '\0')
FORGE(tag_twice, strcpy(TAG(1), "train/loss"))
FORGE(tag_own, strcpy(TAG(0), "gradient/norm"))
FORGE(tag_endless, memset(TAG(0), '\xff', GRADIENTD_NAME_BYTES_MAX + 1))
FORGE(event_name, strcpy((char *)scratch + layout.event_name_offset, "events.out.tfevents./../../x"))
FORGE(rate_beta2, RATES[0].beta2 = 1.0)
FORGE(rate_eps, RATES[0].eps = (double)INFINITY)
FORGE(rate_learning, RATES[0].learning_rate = (double)NAN)
FORGE(shadow_ahead, SHADOWS[1].adam.optimizer_step = UINT64_MAX)
FORGE(starts, LATEST_STATE->starts = 1)
FORGE(alert_group, LATEST_STATE->alerts.rules[GD_ALERT_RMS].count = 1;
      LATEST_STATE->alerts.rules[GD_ALERT_RMS].last.group = GROUPS)
FORGE(alert_norms_next, LATEST_STATE->alerts.norms_next = GD_ALERT_NORMS)
FORGE(alert_norms_seen, LATEST_STATE->alerts.norms_seen = GD_ALERT_NORMS + 1)
FORGE(alert_cosines_next, LATEST_STATE->alerts.cosines_next = UINT32_MAX)
FORGE(alert_cosines_seen, LATEST_STATE->alerts.cosines_seen = GD_ALERT_COSINES + 1)
FORGE(alert_cosine_sum, LATEST_STATE->alerts.cosine_sum = INT64_MAX)

static const struct {
    const char *name;
    void (*spoil)(void);
    const char *says;
} spoilt[] = {
#define SPOILT(name, says)                                                                                             \
    { #name, name, says }
    SPOILT(both_headers, "neither header's checksum"),
    SPOILT(no_header, "neither zeros nor a header"),
    SPOILT(version, "layout version 4, this daemon knows 3"),
    SPOILT(version_unsigned, "layout version 7, this daemon knows 3"),
    SPOILT(latest_state, "its state's checksum"),
    SPOILT(digest, "another OpenRun"),
    SPOILT(total, "another OpenRun"),
    SPOILT(appended_low, "bytes of the event file are written, of 1 appended"),
    SPOILT(appended_high, "appended"),
    SPOILT(state_sequence, "its state's checksum"),
    SPOILT(step, "step"),
    SPOILT(wall_time, "time"),
    SPOILT(slot_ahead, "ahead of the run"),
    SPOILT(slot_negative, "ahead of the run"),
    SPOILT(slot_sequence, "ahead of the run"),
    SPOILT(slot_use, "neither free nor in use"),
    SPOILT(slots_full, "no slot"),
    SPOILT(tags_many, "too many tags"),
    SPOILT(tags_more, "tag"),
    SPOILT(tag_step, "tags"),
    SPOILT(tag_empty, "no name"),
    SPOILT(tag_twice, "tags"),
    SPOILT(tag_own, "tags"),
    SPOILT(tag_endless, "no name"),
    SPOILT(event_name, "event file"),
    SPOILT(rate_beta2, "rates"),
    SPOILT(rate_eps, "rates"),
    SPOILT(rate_learning, "rates"),
    SPOILT(shadow_ahead, "a shadow rule"),
    SPOILT(starts, "start vectors"),
    SPOILT(alert_group, "rules"),
    SPOILT(alert_norms_next, "rules"),
    SPOILT(alert_norms_seen, "rules"),
    SPOILT(alert_cosines_next, "rules"),
    SPOILT(alert_cosines_seen, "rules"),
    SPOILT(alert_cosine_sum, "rules"),
};

Test(resume, what_a_trainer_may_have_changed_is_not_trusted) {
    record(GD_RULE_ADAM);
    lay_out(GD_RULE_ADAM);
    for (size_t i = 0; i < sizeof(spoilt) / sizeof(spoilt[0]); i++) {
        memcpy(scratch, images[MESSAGES], layout.total_bytes);
        spoilt[i].spoil();
        error = (struct gd_error){.field = "", .text = ""};
        int result = attach_image(scratch, GD_RULE_ADAM, appended[MESSAGES]);
        cr_expect_eq(result, -EBADMSG, "%s: %d", spoilt[i].name, result);
        cr_expect_eq(error.code, GD_ERROR_MEMORY, "%s: %s", spoilt[i].name, error.text);
        cr_expect(strstr(error.text, spoilt[i].says), "%s: %s", spoilt[i].name, error.text);
        free_run();
    }
    forget();
}

Test(resume, one_damaged_header_leaves_the_other) {
    record(GD_RULE_ADAM);
    lay_out(GD_RULE_ADAM);
    memcpy(scratch, images[MESSAGES], layout.total_bytes);
    flip(header_copy(1 - LATEST));
    expect_same_file(scratch, GD_RULE_ADAM, MESSAGES, appended[MESSAGES]);
    flip(header_copy(1 - LATEST));
    flip(LATEST_HEADER);
    expect_same_file(scratch, GD_RULE_ADAM, MESSAGES - 1, appended[MESSAGES - 1]);
    forget();
}

// Somebody has cut the file off, or the machine has lost it, while no daemon looked after it: the outbox still has it.
Test(resume, what_the_event_file_has_lost_is_written_again) {
    record(GD_RULE_ADAM);
    const uint64_t kept[] = {0, 1, appended[0], appended[MESSAGES / 2] + 7, appended[MESSAGES] - 1};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        kept_bytes = kept[i];
        expect_same_file(images[MESSAGES], GD_RULE_ADAM, MESSAGES, appended[MESSAGES]);
    }
    forget();
}

Test(resume, an_ended_run_only_finishes_its_file) {
    start(open_run_of(GD_RULE_ADAM));
    submit_good(new_message(1));
    submit_close(2);
    work();
    uint8_t *image = new_image();
    load_image(image);
    read_events();
    free_events();
    whole_bytes = read_file(whole_file);
    free_run();

    static uint8_t content[FILE_BYTES_MAX];
    cr_assert_eq(attach_image(image, GD_RULE_ADAM, 10), 0, "%s", error.text);
    cr_expect_eq(run->phase, GD_RUN_CLOSING);
    cr_expect_eq(submit(new_block(GD_SUBMISSION_SCALARS, 3, 1)), -EBADMSG);
    read_events();
    free_events();
    cr_assert_eq(read_file(content), whole_bytes);
    cr_assert_arr_eq(content, whole_file, whole_bytes);
    free_run();
    free(image);
}
