// What a step costs in instructions, allocations and bytes, which does not drift as seconds do: run under callgrind by
// tests/cost/run, which knows the limits. Everything of interest happens inside measured().
//
// Usage: cost step ELEMENTS GROUPS LAGS STEPS    the daemon's path from a frame's bytes to a commit, adam
//        cost kernel NAME TYPE LAGS STATE CALLS  one kernel over chunks of 65,536 elements; STATE 0 or 1
//        cost scalars PER_STEP STEPS             events of so many scalars
// Prints `allocations N`: calls of malloc, calloc and realloc inside measured().
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "client/internal.h"
#include "decode.h"
#include "event.h"
#include "run.h"

enum { WARM_UP = 64 }; // until every slot has been used and every buffer has its size; the next image is far

static int result_of(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "cost: %s: %s\n", what, strerror(-result));
        exit(EXIT_FAILURE);
    }
    return result;
}

// ---- Allocations ----------------------------------------------------------------------------------------------------

static bool counting;
static unsigned long allocations;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);

void *__wrap_malloc(size_t bytes) {
    allocations += counting;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes) {
    allocations += counting;
    return __real_calloc(n, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes) {
    allocations += counting;
    return __real_realloc(memory, bytes);
}

// callgrind collects inside this function alone.
__attribute__((noinline)) static void measured(void (*work)(long n), long n) {
    counting = true;
    work(n);
    counting = false;
    __asm__ volatile(""); // no tail call
}

// ---- A step through the daemon --------------------------------------------------------------------------------------

static struct gd_run *run;
static struct gd_arena arena;
static struct gd_submission_pool pool;
static uint8_t *frames; // of Snapshots, one behind the other
static size_t frame_at;
static struct gd_error error;

static void notify(void *context) {
    (void)context;
}

static void open_run(uint64_t elements, uint32_t n_groups, uint32_t max_lag) {
    static const struct gradientd_parameter_group adam = {.beta2 = 0.999, .eps = 1e-8};
    struct gradientd_group *groups = calloc(n_groups, sizeof(*groups));
    char(*names)[24] = calloc(n_groups, sizeof(*names));
    struct gradientd_options options = gradientd_options_default();
    struct gradientd_error client_error;
    struct gd_frame frame;
    struct gd_decoded decoded;
    uint8_t *bytes;
    size_t n_bytes;

    for (uint32_t i = 0; i < n_groups; i++) {
        snprintf(names[i], sizeof(names[i]), "group%u", i);
        groups[i] = (struct gradientd_group){.name = names[i], .numel = elements / n_groups};
    }
    options.groups = groups, options.n_groups = n_groups;
    options.parameter_groups = &adam, options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.max_lag = max_lag;
    options.wall_time = 1.7e9;
    result_of(client_describe(&options, elements / n_groups * n_groups, &bytes, &n_bytes, &client_error), "describe");
    result_of(gd_frame_parse(bytes, n_bytes, &frame, &error) == GD_FRAME_COMPLETE ? 0 : -EPROTO, "frame");
    result_of(gd_decode(&frame, &arena, &pool, &decoded, &error), "decode");
    result_of(gd_open_run_read_table(decoded.open_run, bytes + frame.head_bytes, frame.payload_bytes, &error), "table");
    result_of(gd_run_new_consume(decoded.open_run, &run), "new run");
    free(bytes), free(groups), free(names);
}

static void attach_run(const struct gd_kernels *kernels) {
    struct gd_charge fds = {0};
    struct gd_run_attachment attachment = {
        .memory_fd = memfd_create("cost", MFD_CLOEXEC | MFD_ALLOW_SEALING),
        .event_fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600),
        .fds = &fds,
        .uid = geteuid(),
        .kernels = kernels,
        .notify = notify,
    };
    result_of(ftruncate(attachment.memory_fd, (off_t)run->layout.total_bytes), "ftruncate");
    result_of(-posix_fallocate(attachment.memory_fd, 0, (off_t)run->layout.total_bytes), "fallocate");
    fcntl(attachment.memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    result_of(gd_run_attach(run, &attachment, &error), "attach");
    for (uint32_t slot = 0; slot < run->layout.slots; slot++)
        for (uint64_t i = 0; i < run->open_run->elements; i++)
            ((float *)gd_memory_slot(&run->memory, slot))[i] = 1e-3f * (float)((i * 7 + slot) % 1000 + 1);
}

// Snapshots `first` to `end`, as the C client sends them.
static void pack_frames(int64_t first, int64_t end) {
    enum { FRAME_BYTES_MAX = 256 };
    Gradientd__ParameterGroupStep rate = GRADIENTD__PARAMETER_GROUP_STEP__INIT, *rates[] = {&rate};
    Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT, *streams[] = {&elements};
    Gradientd__Snapshot body = GRADIENTD__SNAPSHOT__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;

    rate.learning_rate = 1e-3;
    elements.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    elements.has_slot = body.has_optimizer_step = true;
    body.n_parameter_groups = body.n_streams = 1;
    body.parameter_groups = rates;
    body.streams = streams;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    message.snapshot = &body;
    uint8_t *next = frames = calloc((size_t)(end - first), FRAME_BYTES_MAX);
    for (int64_t step = first; step < end; step++) {
        body.sequence = body.optimizer_step = (uint64_t)step;
        body.step = step;
        body.wall_time = 1.7e9 + (double)step;
        elements.slot = (uint32_t)(step % run->layout.slots);
        size_t bytes = gradientd__client_message__pack(&message, next + GRADIENTD_FRAME_HEADER_BYTES);
        gd_frame_write_header(next, (uint32_t)bytes, 0);
        next += GRADIENTD_FRAME_HEADER_BYTES + bytes;
    }
}

static void take_steps(long n) {
    for (long i = 0; i < n; i++) {
        struct gd_frame frame;
        struct gd_decoded decoded;
        result_of(gd_frame_parse(frames + frame_at, 4096, &frame, &error), "frame");
        frame_at += frame.head_bytes;
        result_of(gd_decode(&frame, &arena, &pool, &decoded, &error), "decode");
        result_of(gd_run_submit_consume(run, decoded.submission, &error), error.text);
        if (gd_run_next(run) != GD_RUN_BEGIN)
            result_of(-EAGAIN, "the outbox is full");
        gd_run_begin(run, 1);
        gd_run_work(run, 0, 1);
        gd_run_commit(run);
        gd_run_finish(run, &pool);
    }
}

static void cost_of_steps(uint64_t elements, uint32_t groups, uint32_t lags, long steps) {
    const struct gd_kernels *kernels;
    result_of(gd_arena_init(&arena, GD_DECODE_ARENA_BYTES), "arena");
    result_of(gd_kernels_select(getenv("GRADIENTD_KERNELS"), &kernels), "kernels");
    open_run(elements, groups, lags);
    attach_run(kernels);
    pack_frames(1, WARM_UP + steps + 1);
    take_steps(WARM_UP);
    measured(take_steps, steps);
}

// ---- A kernel -------------------------------------------------------------------------------------------------------

static const struct gd_kernels *kernels_under_test;
static struct gd_chunk chunk;

static void call_kernel(long n) {
    struct gd_step_sums sums;
    for (long i = 0; i < n; i++)
        kernels_under_test->analyse(&chunk, &sums);
}

// Finite and not 0 in every type.
static void *filled(enum gd_element_type type, size_t n) {
    uint8_t *values = aligned_alloc(64, n * sizeof(float));
    for (size_t i = 0; values && i < n; i++) {
        if (type == GD_F32)
            ((float *)(void *)values)[i] = 1e-3f * (float)(i % 1000 + 1);
        else
            ((uint16_t *)(void *)values)[i] = (uint16_t)(0x3000 + i % 1000);
    }
    return values;
}

static void cost_of_kernel(const char *name, enum gd_element_type type, uint32_t lags, bool state, long calls) {
    static const struct gd_second_moment_step adam = {
        .gain = 0.001f,
        .keep = 1.0f,
        .measured = true,
        .has_before = true,
        .numerator = 1e-3f,
        .scale = 1.0f,
        .scale_before = 1.0f,
        .outside = 1e-8f,
        .outside_before = 1e-8f,
        .relative_floor = 1e-16f,
    };
    result_of(gd_kernels_select(name, &kernels_under_test), name);
    chunk = (struct gd_chunk){.elems = GD_CHUNK_ELEMS,
                              .type = type,
                              .lags = lags,
                              .gradient = filled(type, GD_CHUNK_ELEMS)};
    for (uint32_t i = 0; i < lags; i++)
        chunk.history[i] = filled(type, GD_CHUNK_ELEMS);
    if (state) {
        chunk.step = &adam;
        chunk.root = filled(GD_F32, GD_CHUNK_ELEMS);
        chunk.root_next = filled(GD_F32, GD_CHUNK_ELEMS);
    }
    measured(call_kernel, calls);
}

// ---- Events ---------------------------------------------------------------------------------------------------------

static struct gd_scalar scalars[1000];
static size_t n_scalars;

static void append_events(long n) {
    static uint8_t bytes[1 << 20];
    for (long i = 0; i < n; i++) {
        struct gd_record_buffer buffer = {.data = bytes, .capacity = sizeof(bytes)};
        gd_event_append_scalars(&buffer, 1.7e9, i, scalars, n_scalars);
    }
}

static void cost_of_scalars(size_t per_step, long steps) {
    n_scalars = per_step < 1000 ? per_step : 1000;
    for (size_t i = 0; i < n_scalars; i++)
        scalars[i] = gd_scalar_of("coherence/cosine_lag1", (float)i, NULL);
    measured(append_events, steps);
}

int main(int argc, char **argv) {
    if (argc == 6 && strcmp(argv[1], "step") == 0)
        cost_of_steps(strtoull(argv[2], NULL, 10), (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]), atol(argv[5]));
    else if (argc == 7 && strcmp(argv[1], "kernel") == 0)
        cost_of_kernel(argv[2], (enum gd_element_type)atoi(argv[3]), (uint32_t)atoi(argv[4]), atoi(argv[5]),
                       atol(argv[6]));
    else if (argc == 4 && strcmp(argv[1], "scalars") == 0)
        cost_of_scalars((size_t)atol(argv[2]), atol(argv[3]));
    else {
        fputs("cost: unknown arguments; see the head of tests/cost/cost.c\n", stderr);
        return 2;
    }
    printf("allocations %lu\n", allocations);
    fflush(stdout);
    _exit(0); // the writer's thread goes too
}
