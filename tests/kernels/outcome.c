#include "outcome.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

// ---- Running --------------------------------------------------------------------------------------------------------

static sigjmp_buf before_call;
static volatile sig_atomic_t is_in_call;
static const void *volatile fault_address;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    if (!is_in_call) { // a mistake of our own, which happens again and then ends us
        signal(number, SIG_DFL);
        return;
    }
    fault_address = info->si_addr;
    siglongjmp(before_call, 1);
}

void outcome_init(void) {
    const int faults[] = {SIGSEGV, SIGBUS, SIGILL};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (sigaction(faults[i], &action, NULL) != 0)
            abort();
    }
}

// Returns whether the kernel came back.
static bool run(const struct gd_kernels *kernels, const struct gd_chunk *chunk, struct gd_step_sums *ret_sums) {
    if (sigsetjmp(before_call, 0) != 0) {
        is_in_call = 0;
        return false;
    }
    is_in_call = 1;
    kernels->analyse(chunk, ret_sums);
    is_in_call = 0;
    return true;
}

enum {
    LEFTOVER_BYTE = 0x7f, // such floats and doubles are large enough to show in any sum, and those of the few below it
    LEFTOVER_BYTES = 7,   // more than there are kernels in turn
    STACK_BYTES = 32768,  // some more than the kernels' own frames, which hold a few blocks and all lanes
};

// Fills the stack that the next call uses, with other bytes than for the call before: what a kernel forgets to set is
// neither by chance what it should be, because an equal call left it there, nor what another kernel finds.
static __attribute__((noinline)) void fill_stack(void) {
    static unsigned calls;
    uint8_t bytes[STACK_BYTES];

    memset(bytes, LEFTOVER_BYTE - (int)(calls++ % LEFTOVER_BYTES), sizeof(bytes));
    __asm__ volatile("" : : "r"(bytes) : "memory"); // for the compiler: it is read
}

void outcome_of(const struct gd_kernels *kernels, const struct placed_call *placed, struct outcome *ret_outcome) {
    memset(ret_outcome, LEFTOVER_BYTE, sizeof(*ret_outcome));
    placed_call_clear_outputs(placed);
    placed_call_poison_margins(placed, true);
    fill_stack();
    ret_outcome->faulted = !run(kernels, &placed->chunk, &ret_outcome->sums);
    placed_call_poison_margins(placed, false);
    ret_outcome->fault = fault_address;
    ret_outcome->root_next = placed->chunk.root_next;
    ret_outcome->maximum_next = placed->chunk.maximum_next;
}

void outcome_keep(struct outcome *outcome, size_t elems) {
    static float root_next[GD_CHUNK_ELEMS], maximum_next[GD_CHUNK_ELEMS];

    if (outcome->root_next)
        outcome->root_next = memcpy(root_next, outcome->root_next, elems * sizeof(float));
    if (outcome->maximum_next)
        outcome->maximum_next = memcpy(maximum_next, outcome->maximum_next, elems * sizeof(float));
}

// ---- Comparing ------------------------------------------------------------------------------------------------------

struct field {
    const char *name;
    size_t at, bytes, count;
    enum { INTEGER, REAL } kind;
};

#define SIZE_OF(name) sizeof(((struct gd_step_sums *)0)->name)
#define ONE(name, kind)                                                                                                \
    { #name, offsetof(struct gd_step_sums, name), SIZE_OF(name), 1, kind }
#define EACH_LAG(name)                                                                                                 \
    { #name, offsetof(struct gd_step_sums, name), SIZE_OF(name) / GD_LAG_MAX, GD_LAG_MAX, REAL }

// The sums field by field: between them lies padding.
static const struct field fields[] = {
    ONE(elements, INTEGER),
    ONE(zeros, INTEGER),
    ONE(non_finite, INTEGER),
    ONE(max_abs, REAL),
    ONE(squared_norm, REAL),
    EACH_LAG(dot),
    EACH_LAG(squared_norm_now),
    EACH_LAG(squared_norm_past),
    ONE(active, INTEGER),
    ONE(A, REAL),
    ONE(B, REAL),
    ONE(C, REAL),
    ONE(D, REAL),
    ONE(relative_square, REAL),
    ONE(relative_elements, INTEGER),
    ONE(step_size_min, REAL),
    ONE(first_non_finite_group, INTEGER),
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

_Static_assert(sizeof(struct gd_step_sums) == 11 * 8 + 3 * GD_LAG_MAX * 8 + 3 * 4 + 4,
               "11 numbers of 8 bytes, 3 times one a lag, 3 of 4 bytes and padding: a new one must be in the table");

static const uint8_t *bytes_of(const struct gd_step_sums *sums, const struct field *field, size_t i) {
    return (const uint8_t *)sums + field->at + i * field->bytes;
}

static bool is_same_field(const struct gd_step_sums *a, const struct gd_step_sums *b, const struct field *field) {
    return memcmp(bytes_of(a, field, 0), bytes_of(b, field, 0), field->count * field->bytes) == 0;
}

static bool is_same_state(const float *state, const float *expected, size_t elems) {
    return !expected || memcmp(state, expected, elems * sizeof(float)) == 0;
}

bool outcome_is_good(const struct outcome *outcome, const struct outcome *expected, const struct placed_call *placed) {
    size_t elems = placed->chunk.elems;

    if (outcome->faulted)
        return false;
    for (size_t i = 0; i < FIELDS; i++) {
        if (!is_same_field(&outcome->sums, &expected->sums, &fields[i]))
            return false;
    }
    return is_same_state(outcome->root_next, expected->root_next, elems) &&
           is_same_state(outcome->maximum_next, expected->maximum_next, elems) &&
           placed_call_changed_buffer(placed) < 0;
}

// ---- Saying what differs --------------------------------------------------------------------------------------------

static uint64_t value_bits(const void *value, size_t bytes) {
    uint32_t narrow;
    uint64_t wide;

    if (bytes == sizeof(narrow)) {
        memcpy(&narrow, value, sizeof(narrow));
        return narrow;
    }
    memcpy(&wide, value, sizeof(wide));
    return wide;
}

// Prints the first of `count` values that differs, if any does.
static void print_difference(const char *name, const void *values, const void *expected, size_t bytes, size_t count,
                             FILE *to) {
    const uint8_t *a = values, *b = expected;
    int digits = (int)(2 * bytes);

    for (size_t i = 0; i < count; i++, a += bytes, b += bytes) {
        if (memcmp(a, b, bytes) == 0)
            continue;
        fprintf(to, "    %s", name);
        if (count > 1)
            fprintf(to, "[%zu]", i);
        fprintf(to, " is 0x%0*" PRIx64 ", the reference's 0x%0*" PRIx64 "\n", digits, value_bits(a, bytes), digits,
                value_bits(b, bytes));
        return;
    }
}

void outcome_print_faults(const struct outcome *outcome, const struct outcome *expected,
                          const struct placed_call *placed, FILE *to) {
    size_t elems = placed->chunk.elems;
    int changed = placed_call_changed_buffer(placed);

    if (outcome->faulted) {
        fputs("    faulted at ", to);
        print_address(outcome->fault, to);
        fputc('\n', to);
        return;
    }
    for (size_t i = 0; i < FIELDS; i++) {
        const struct field *field = &fields[i];
        print_difference(field->name, bytes_of(&outcome->sums, field, 0), bytes_of(&expected->sums, field, 0),
                         field->bytes, field->count, to);
    }
    if (expected->root_next)
        print_difference("root_next", outcome->root_next, expected->root_next, sizeof(float), elems, to);
    if (expected->maximum_next)
        print_difference("maximum_next", outcome->maximum_next, expected->maximum_next, sizeof(float), elems, to);
    if (changed >= 0) {
        fputs("    wrote to what is not an output, at ", to);
        print_buffer(changed, to);
        fputc('\n', to);
    }
}

// ---- Hashing --------------------------------------------------------------------------------------------------------

static uint64_t mixed(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

// What to hash of a field's value: all NaN alike.
static uint64_t hashed_bits(const void *value, const struct field *field) {
    uint64_t bits = value_bits(value, field->bytes);
    uint64_t infinity = field->bytes == sizeof(float) ? UINT64_C(0x7f800000) : UINT64_C(0x7ff0000000000000);
    uint64_t size = bits & UINT64_MAX >> (65 - 8 * field->bytes); // without the sign

    return field->kind == REAL && size > infinity ? UINT64_MAX : bits;
}

static uint64_t mixed_floats(uint64_t hash, const float *values, size_t n) {
    for (size_t i = 0; values && i < n; i++)
        hash = mixed(hash, value_bits(&values[i], sizeof(*values)));
    return hash;
}

uint64_t outcome_hash(const struct outcome *outcome, size_t elems) {
    uint64_t hash = 0;

    for (size_t i = 0; i < FIELDS; i++) {
        for (size_t k = 0; k < fields[i].count; k++)
            hash = mixed(hash, hashed_bits(bytes_of(&outcome->sums, &fields[i], k), &fields[i]));
    }
    hash = mixed_floats(hash, outcome->root_next, elems);
    return mixed_floats(hash, outcome->maximum_next, elems);
}
