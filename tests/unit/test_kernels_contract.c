// The kernels' promises beyond the mathematics: the bits, what they touch, and that equal chunks give equal bits.
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "element_values.h"
#include "kernel_cases.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static enum gd_element_type type_of(uint64_t seed) {
    return (enum gd_element_type)(GD_F32 + seed % 3);
}

static void analyse(const struct gd_chunk *chunk, struct gd_step_sums *ret_sums) {
    gd_step_sums_init(ret_sums); // kernels leave lags that the chunk has not
    gd_kernels_scalar.analyse(chunk, ret_sums);
}

static bool same_bits(double a, double b) {
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static bool same_sums(const struct gd_step_sums *a, const struct gd_step_sums *b) { // not memcmp: there is padding
    return a->elements == b->elements && a->zeros == b->zeros && a->non_finite == b->non_finite &&
           a->max_abs == b->max_abs && same_bits(a->squared_norm, b->squared_norm) &&
           memcmp(a->dot, b->dot, sizeof(a->dot)) == 0 && a->active == b->active && same_bits(a->A, b->A) &&
           same_bits(a->B, b->B) && same_bits(a->C, b->C) && same_bits(a->D, b->D) &&
           same_bits(a->relative_square, b->relative_square) && a->step_size_min == b->step_size_min &&
           a->first_non_finite_group == b->first_non_finite_group;
}

// ---- The lane contract, bit by bit ----------------------------------------------------------------------------------

// One sum as the contract words it: lane i mod 16, a flush after each GD_FLUSH_ELEMS and at the end, the tree.
static double contract_sum(const float *addends, size_t n) {
    float lane[GD_LANES] = {0};
    double total[GD_LANES] = {0};

    for (size_t i = 0; i < n; i++) {
        lane[i % 16] += addends[i];
        if ((i + 1) % 1024 == 0 || i + 1 == n) {
            for (int k = 0; k < 16; k++) {
                total[k] += (double)lane[k];
                lane[k] = 0.0f;
            }
        }
    }
    for (int w = 8; w >= 1; w /= 2) {
        for (int i = 0; i < w; i++)
            total[i] += total[i + w];
    }
    return total[0];
}

static void check_products(enum gd_element_type type) {
    const size_t lengths[] = {1, 15, 16, 17, 1023, 1024, 1025, 2047, 2048, 5000};
    static float squares[5000];
    static float products[5000];

    for (size_t l = 0; l < ARRAY_SIZE(lengths); l++) {
        struct kernel_case *c = kernel_case_new(l, type, lengths[l], 0, &rule_forms[0], GAUSSIAN);
        struct kernel_case *past = kernel_case_new(l + 100, type, lengths[l], 0, &rule_forms[0], LOGNORMAL);
        struct gd_step_sums sums;

        c->chunk.lags = 3;
        c->chunk.history[2] = past->chunk.gradient;
        for (size_t i = 0; i < lengths[l]; i++) {
            squares[i] = c->gradient[i] * c->gradient[i];
            products[i] = c->gradient[i] * past->gradient[i];
        }
        analyse(&c->chunk, &sums);
        cr_expect(same_bits(sums.squared_norm, contract_sum(squares, lengths[l])), "%s", kernel_case_text(c));
        cr_expect(same_bits(sums.dot[2], contract_sum(products, lengths[l])), "%s", kernel_case_text(c));
        kernel_case_free(past);
        kernel_case_free(c);
    }
}

Test(kernels_contract, products_are_summed_in_the_contracts_lanes) {
    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++)
        check_products(type);
}

// Adam terms of one element, in the contract's words; what is left out is +0, which changes no bit of a sum.
struct contract_element {
    float root_next, maximum_next, A, B, C, D, relative_square;
};

static struct contract_element contract_element(const struct gd_second_moment_step *s, float g, float r, float m) {
    struct contract_element out = {0};
    float square = fminf(g * g, FLT_MAX);
    float v = r * r;
    float v_next = s->from_square ? square + s->gain * (v - square) : v + s->gain * (square - s->keep * v);
    bool active = g != 0.0f;

    if (r > 0.0f || active)
        out.root_next = sqrtf(fminf(fmaxf(v_next, 1.21e-38f), FLT_MAX));
    out.maximum_next = fmaxf(m, out.root_next * s->max_scale);
    if (!active)
        return out;

    float w_next = s->max_scale > 0.0f ? out.maximum_next : out.root_next;
    float w = r == 0.0f ? w_next : s->max_scale > 0.0f ? m : r;
    float x = w_next * s->scale;
    float x0 = w * s->scale_before;
    float p = s->inside > 0.0f ? sqrtf(x * x + s->inside) : x;
    float p0 = s->inside_before > 0.0f ? sqrtf(x0 * x0 + s->inside_before) : x0;
    float fall = s->inside > 0.0f || s->inside_before > 0.0f ? p0 - p : (w - w_next) * s->scale + w * s->scale_fall;
    float d = p + s->outside;
    float d0 = p0 + s->outside_before;
    float q = 1.0f / (d * d0);
    float e = s->numerator * (d0 * q);
    float change = q * (s->numerator * (fall + s->outside_fall) + s->numerator_rise * d);

    out.A = e;
    out.B = (e * g) * (e * g);
    out.relative_square = square / fmaxf(x * x + s->accumulator, s->relative_floor);
    if (s->has_before && r > 0.0f) {
        out.C = fabsf(change);
        out.D = change * change;
    }
    return out;
}

static void check_bits(const struct rule_form *form, enum gd_element_type type, uint64_t seed) {
    enum { ELEMS = 3000 };
    static float A[ELEMS], B[ELEMS], C[ELEMS], D[ELEMS], relative_square[ELEMS];
    struct kernel_case *c = kernel_case_new(seed, type, ELEMS, 0, form, seed % 2 ? GAUSSIAN : SPARSE);
    struct gd_step_sums sums;

    analyse(&c->chunk, &sums);
    for (size_t i = 0; i < ELEMS; i++) {
        struct contract_element e =
            contract_element(&form->step, c->gradient[i], c->chunk.root[i], form->maximum ? c->chunk.maximum[i] : 0.0f);
        A[i] = e.A, B[i] = e.B, C[i] = e.C, D[i] = e.D, relative_square[i] = e.relative_square;
        cr_assert(memcmp(&e.root_next, &c->chunk.root_next[i], sizeof(float)) == 0, "%s: root[%zu]",
                  kernel_case_text(c), i);
        cr_assert(!form->maximum || memcmp(&e.maximum_next, &c->chunk.maximum_next[i], sizeof(float)) == 0,
                  "%s: maximum[%zu]", kernel_case_text(c), i);
    }
    if (form->step.measured) {
        cr_assert(same_bits(sums.A, contract_sum(A, ELEMS)), "%s", kernel_case_text(c));
        cr_assert(same_bits(sums.B, contract_sum(B, ELEMS)), "%s", kernel_case_text(c));
        cr_assert(same_bits(sums.C, contract_sum(C, ELEMS)), "%s", kernel_case_text(c));
        cr_assert(same_bits(sums.D, contract_sum(D, ELEMS)), "%s", kernel_case_text(c));
        cr_assert(same_bits(sums.relative_square, contract_sum(relative_square, ELEMS)), "%s", kernel_case_text(c));
    }
    kernel_case_free(c);
}

Test(kernels_contract, adam_terms_are_computed_in_the_contracts_order) {
    for (size_t form = 0; form < n_rule_forms; form++) {
        for (uint64_t seed = 0; rule_forms[form].state && seed < 12; seed++)
            check_bits(&rule_forms[form], type_of(seed), seed);
    }
}

// ---- Identities and side effects ------------------------------------------------------------------------------------

Test(kernels_contract, a_snapshot_times_itself_is_its_squared_norm) {
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct kernel_case *c = kernel_case_new(seed, type_of(seed), 31 * seed, 0, &rule_forms[0],
                                                (enum distribution)(seed / 3 % DISTRIBUTIONS));
        struct gd_step_sums sums;

        c->chunk.lags = 1;
        c->chunk.history[0] = c->chunk.gradient;
        analyse(&c->chunk, &sums);
        cr_expect(same_bits(sums.dot[0], sums.squared_norm), "%s", kernel_case_text(c));
        kernel_case_free(c);
    }
}

Test(kernels_contract, the_same_chunk_gives_the_same_bits) {
    for (uint64_t seed = 0; seed < 60; seed++) {
        // Two equal cases, whose buffers lie elsewhere in memory and hence are aligned otherwise.
        struct kernel_case *a =
            kernel_case_new(seed, type_of(seed), 77 * seed, 3, &rule_forms[seed % n_rule_forms], GAUSSIAN);
        struct kernel_case *b =
            kernel_case_new(seed, type_of(seed), 77 * seed, 3, &rule_forms[seed % n_rule_forms], GAUSSIAN);
        struct gd_step_sums sums, again, elsewhere;

        analyse(&a->chunk, &sums);
        analyse(&a->chunk, &again);
        kernel_case_shift(b);
        analyse(&b->chunk, &elsewhere);
        cr_expect(same_sums(&sums, &again), "%s: run twice", kernel_case_text(a));
        cr_expect(same_sums(&sums, &elsewhere), "%s: other alignment", kernel_case_text(a));
        kernel_case_free(a);
        kernel_case_free(b);
    }
}

// ---- Element types --------------------------------------------------------------------------------------------------

// The case's chunk with its elements' values in f32, and the state the one chunk leaves behind against the other's.
static void check_as_f32(uint64_t seed, enum gd_element_type type, const struct rule_form *form,
                         enum distribution distribution) {
    struct kernel_case *c = kernel_case_new(seed, type, 2100 + seed, 4, form, distribution);
    struct kernel_case *wide = kernel_case_new(seed, GD_F32, 2100 + seed, 4, form, distribution);
    size_t state_bytes = c->chunk.elems * sizeof(float);
    struct gd_step_sums sums, expected;

    wide->chunk.gradient = c->gradient;
    memcpy(wide->chunk.history, c->history, sizeof(c->history));
    wide->chunk.root = c->chunk.root;
    wide->chunk.maximum = c->chunk.maximum;
    analyse(&c->chunk, &sums);
    analyse(&wide->chunk, &expected);
    cr_expect(same_sums(&sums, &expected), "%s", kernel_case_text(c));
    cr_expect(!form->state || memcmp(c->chunk.root_next, wide->chunk.root_next, state_bytes) == 0, "%s: roots",
              kernel_case_text(c));
    cr_expect(!form->maximum || memcmp(c->chunk.maximum_next, wide->chunk.maximum_next, state_bytes) == 0, "%s: maxima",
              kernel_case_text(c));
    kernel_case_free(wide);
    kernel_case_free(c);
}

Test(kernels_contract, elements_of_16_bits_give_the_bits_of_an_f32_chunk_of_their_values) {
    for (size_t form = 0; form < n_rule_forms; form++) {
        for (int distribution = 0; distribution < DISTRIBUTIONS; distribution++) {
            check_as_f32(form, GD_BF16, &rule_forms[form], (enum distribution)distribution);
            check_as_f32(form, GD_F16, &rule_forms[form], (enum distribution)distribution);
        }
    }
}

// Ones, of which element `at` is something else: now, in the past or both.
static void check_among_ones(enum gd_element_type type, size_t elems, size_t at, float other) {
    uint32_t now[GD_FLUSH_ELEMS + 2 * GD_LANES], past[GD_FLUSH_ELEMS + 2 * GD_LANES];
    double ones = (double)elems - 1.0;

    for (unsigned places = 1; places <= 3; places++) {
        struct gd_chunk chunk = {.elems = elems, .type = type, .gradient = now, .lags = 2, .history = {NULL, past}};
        struct gd_step_sums sums;
        for (size_t i = 0; i < elems; i++) {
            element_store(type, now, i, element_bits(type, i == at && places & 1 ? other : 1.0f));
            element_store(type, past, i, element_bits(type, i == at && places & 2 ? other : 1.0f));
        }
        analyse(&chunk, &sums);
        bool bad = places & 1;
        cr_assert(sums.non_finite == (bad && !isfinite(other)) && sums.zeros == (bad && other == 0.0f) &&
                      sums.active == elems - bad && sums.squared_norm == (double)(elems - bad) && sums.dot[1] == ones &&
                      sums.max_abs == 1.0f,
                  "type %d, %a at %zu of %zu, places %u", (int)type, (double)other, at, elems, places);
    }
}

Test(kernels_contract, what_counts_for_nothing_counts_for_nothing_in_every_lane) {
    const float others[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    const size_t lengths[] = {2, 2 * GD_LANES, 3 * GD_LANES - 1, GD_FLUSH_ELEMS + GD_LANES + 1};

    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
        for (size_t l = 0; l < ARRAY_SIZE(lengths); l++) {
            for (size_t at = lengths[l] < 2 * GD_LANES ? 0 : lengths[l] - 2 * GD_LANES; at < lengths[l]; at++) {
                for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                    check_among_ones(type, lengths[l], at, others[i]);
            }
        }
    }
}

// ---- Guard pages ----------------------------------------------------------------------------------------------------

enum { GUARDED_BUFFERS = 7, GUARDED_ELEMS_MAX = 70 };

// One writable page between two that fault. Returns the first byte of the middle one.
static char *guarded_page(size_t page_bytes) {
    char *pages = mmap(NULL, 3 * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert(pages != MAP_FAILED && mprotect(pages + page_bytes, page_bytes, PROT_READ | PROT_WRITE) == 0);
    return pages + page_bytes;
}

// Where ones go, of the type: from the page's first byte on, or up to its last (the state: as far as its alignment lets
// it).
static void *place_ones(char *page, size_t page_bytes, enum gd_element_type type, size_t elems, size_t alignment,
                        bool at_end) {
    size_t bytes = (elems * gd_element_bytes(type) + alignment - 1) / alignment * alignment;
    void *start = at_end ? page + page_bytes - bytes : page;

    for (size_t i = 0; i < elems; i++)
        element_store(type, start, i, element_bits(type, 1.0f));
    return start;
}

static bool survives(const struct gd_chunk *chunk) {
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        struct gd_step_sums sums;
        analyse(chunk, &sums);
        _exit(0);
    }
    cr_assert(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void check_guarded(enum gd_element_type type, char *const pages[static GUARDED_BUFFERS], size_t page_bytes) {
    for (size_t elems = 0; elems <= GUARDED_ELEMS_MAX; elems++) {
        for (int at_end = 0; at_end <= 1; at_end++) {
            void *buffer[GUARDED_BUFFERS];
            for (size_t i = 0; i < GUARDED_BUFFERS; i++)
                buffer[i] = i < 3 ? place_ones(pages[i], page_bytes, type, elems, gd_element_bytes(type), at_end)
                                  : place_ones(pages[i], page_bytes, GD_F32, elems, 64, at_end);
            struct gd_chunk chunk = {
                .elems = elems,
                .type = type,
                .gradient = buffer[0],
                .lags = 2,
                .history = {buffer[1], buffer[2]},
                .step = &rule_form_named("amsgrad, corrected maximum, eps inside")->step,
                .root = buffer[3],
                .root_next = buffer[4],
                .maximum = buffer[5],
                .maximum_next = buffer[6],
            };
            cr_expect(survives(&chunk), "type %d, %zu elements %s a page", (int)type, elems,
                      at_end ? "ending at the end of" : "starting");
        }
    }
}

Test(kernels_contract, nothing_outside_the_buffers_is_touched) {
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *pages[GUARDED_BUFFERS];

    for (size_t i = 0; i < GUARDED_BUFFERS; i++)
        pages[i] = guarded_page(page_bytes);
    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++)
        check_guarded(type, pages, page_bytes);
}
