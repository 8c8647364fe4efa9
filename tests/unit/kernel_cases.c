#include "kernel_cases.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "element_values.h"

enum { STATE_ALIGNMENT = 64, CANARY_ELEMS = 16 };
static const float canary = 0x1.c0ffeep3f;

// A buffer of a chunk. Inputs are compared with `before`; outputs end in canaries.
struct case_buffer {
    uint8_t *memory;
    uint8_t *start;
    size_t bytes;
    uint8_t *before; // NULL: an output
    float *values;   // what the elements are worth; NULL: state
};

static void *checked(void *memory) {
    if (!memory)
        abort();
    return memory;
}

static struct case_buffer *add_buffer(struct kernel_case *c, void *memory, size_t offset, size_t bytes) {
    struct case_buffer *buffer = &c->buffers[c->n_buffers++];

    buffer->memory = checked(memory);
    buffer->start = buffer->memory + offset;
    buffer->bytes = bytes;
    return buffer;
}

static void remember(struct case_buffer *buffer) {
    buffer->before = checked(malloc(buffer->bytes + 1));
    memcpy(buffer->before, buffer->start, buffer->bytes);
}

// An input that ends where its allocation ends, so that AddressSanitizer sees a read behind it.
static const struct case_buffer *add_vector(struct kernel_case *c, uint64_t *state) {
    size_t elems = c->chunk.elems;
    size_t element_bytes = gd_element_bytes(c->chunk.type);
    size_t offset = (1 + random_below(state, 16)) * element_bytes; // at least 1 element, for kernel_case_shift()
    void *memory = malloc(offset + elems * element_bytes);
    struct case_buffer *buffer = add_buffer(c, memory, offset, elems * element_bytes);

    buffer->values = checked(malloc((elems + 1) * sizeof(float)));
    for (size_t i = 0; i < elems; i++) {
        uint32_t bits = element_bits(c->chunk.type, draw_value(c->distribution, c->chunk.type, state));
        element_store(c->chunk.type, buffer->start, i, bits);
        buffer->values[i] = (float)element_value(c->chunk.type, bits);
    }
    remember(buffer);
    return buffer;
}

static void add_vectors(struct kernel_case *c, uint64_t *state) {
    const struct case_buffer *gradient = add_vector(c, state);

    c->chunk.gradient = gradient->start;
    c->gradient = gradient->values;
    for (uint32_t lag = 0; lag < c->chunk.lags; lag++) {
        if (random_below(state, 4) == 0)
            continue;
        const struct case_buffer *past = add_vector(c, state);
        c->chunk.history[lag] = past->start;
        c->history[lag] = past->values;
    }
}

static float *allocate_state(size_t elems) {
    void *memory = NULL;

    if (posix_memalign(&memory, STATE_ALIGNMENT, elems * sizeof(float)) != 0)
        abort();
    return memory;
}

static float *add_state_output(struct kernel_case *c) {
    size_t elems = c->chunk.elems + CANARY_ELEMS;
    float *values = allocate_state(elems);

    add_buffer(c, values, 0, c->chunk.elems * sizeof(float));
    for (size_t i = 0; i < elems; i++)
        values[i] = canary;
    return values;
}

// The state before the step, also without a byte behind it.
static const float *add_state_input(struct kernel_case *c, const float *values) {
    size_t bytes = c->chunk.elems * sizeof(float);
    float *copy = allocate_state(c->chunk.elems);

    memcpy(copy, values, bytes);
    remember(add_buffer(c, copy, 0, bytes));
    return copy;
}

static void fill_state(struct kernel_case *c, uint64_t *state) {
    struct gd_chunk *chunk = &c->chunk;
    float *values = checked(malloc((chunk->elems + 1) * sizeof(float)));

    for (size_t i = 0; i < chunk->elems; i++)
        values[i] = draw_root(state);
    chunk->root = add_state_input(c, values);
    chunk->root_next = add_state_output(c);
    if (c->form->maximum) {
        for (size_t i = 0; i < chunk->elems; i++)
            values[i] = draw_maximum(values[i], c->form->step.max_scale, state);
        chunk->maximum = add_state_input(c, values);
        chunk->maximum_next = add_state_output(c);
    }
    free(values);
}

struct kernel_case *kernel_case_new(uint64_t seed, enum gd_element_type type, size_t elems, uint32_t lags,
                                    const struct rule_form *form, enum distribution distribution) {
    struct kernel_case *c = checked(calloc(1, sizeof(*c)));
    uint64_t state = seed;

    c->seed = seed;
    c->form = form;
    c->distribution = distribution;
    c->buffers = checked(calloc(GD_LAG_MAX + 5, sizeof(*c->buffers)));
    c->chunk = (struct gd_chunk){.elems = elems, .type = type, .lags = lags};
    add_vectors(c, &state);
    if (form->state) {
        c->chunk.step = &form->step;
        fill_state(c, &state);
    }
    snprintf(c->text, sizeof(c->text), "seed %llu, %zu %s elements, %u lags, %s, %s values", (unsigned long long)seed,
             elems, element_type_names[type], lags, form->name, distribution_names[distribution]);
    return c;
}

void kernel_case_free(struct kernel_case *c) {
    for (size_t i = 0; i < c->n_buffers; i++) {
        free(c->buffers[i].memory);
        free(c->buffers[i].before);
        free(c->buffers[i].values);
    }
    free(c->buffers);
    free(c);
}

const char *kernel_case_text(const struct kernel_case *c) {
    return c->text;
}

bool kernel_case_is_intact(const struct kernel_case *c) {
    for (size_t i = 0; i < c->n_buffers; i++) {
        const struct case_buffer *buffer = &c->buffers[i];
        const uint8_t *end = buffer->start + buffer->bytes;

        if (buffer->before && memcmp(buffer->start, buffer->before, buffer->bytes) != 0)
            return false;
        for (size_t k = 0; !buffer->before && k < CANARY_ELEMS; k++) {
            if (memcmp(end + k * sizeof(canary), &canary, sizeof(canary)) != 0)
                return false;
        }
    }
    return true;
}

void kernel_case_shift(struct kernel_case *c) {
    size_t element_bytes = gd_element_bytes(c->chunk.type);
    size_t next = 0;

    for (size_t i = 0; i < c->n_buffers; i++) {
        struct case_buffer *buffer = &c->buffers[i];
        if (!buffer->values)
            continue;
        memmove(buffer->start - element_bytes, buffer->start, buffer->bytes);
        buffer->start -= element_bytes;
    }
    c->chunk.gradient = c->buffers[next++].start;
    for (uint32_t lag = 0; lag < c->chunk.lags; lag++) {
        if (c->chunk.history[lag])
            c->chunk.history[lag] = c->buffers[next++].start;
    }
}

float cleaned(float x) {
    return isfinite(x) ? x : 0.0f;
}

// ---- The mathematics, and the error of doing it in float -----------------------------------------------------------

struct approx rounded(long double value, long double error) {
    return (struct approx){value, error + U * (fabsl(value) + error) + 0x1p-150L};
}

static struct approx exact(long double value) {
    return (struct approx){value, 0.0L};
}

static struct approx add(struct approx a, struct approx b) {
    return rounded(a.value + b.value, a.error + b.error);
}

static struct approx subtract(struct approx a, struct approx b) {
    return rounded(a.value - b.value, a.error + b.error);
}

static struct approx multiply(struct approx a, struct approx b) {
    return rounded(a.value * b.value, fabsl(a.value) * b.error + fabsl(b.value) * a.error + a.error * b.error);
}

// |a/b - a'/b'| <= (|a - a'| + |a/b| |b - b'|) / |b'|
static struct approx divide(struct approx a, struct approx b) {
    long double quotient = a.value / b.value;

    return rounded(quotient, (a.error + fabsl(quotient) * b.error) / (fabsl(b.value) - b.error));
}

// |sqrt(x) - sqrt(y)| <= |x - y| / sqrt(x)
static struct approx root_of(struct approx x) {
    return rounded(sqrtl(x.value), x.error / sqrtl(x.value));
}

static struct approx larger(struct approx a, struct approx b) {
    return (struct approx){fmaxl(a.value, b.value), fmaxl(a.error, b.error)};
}

// Exact where the float computation cannot but overflow.
static struct approx at_most_float_max(struct approx x) {
    if (x.value - x.error > (long double)FLT_MAX)
        return exact((long double)FLT_MAX);
    return (struct approx){fminl(x.value, (long double)FLT_MAX), x.error};
}

static struct approx replace_value(struct approx computed, long double value) {
    return (struct approx){value, computed.error};
}

static struct approx inside_root(struct approx w, long double inside) {
    return inside > 0.0L ? root_of(add(multiply(w, w), exact(inside))) : w;
}

// The errors of the state after the step.
static void follow_state(const struct gd_second_moment_step *step, float g, float r, const float *m,
                         struct element_terms *terms) {
    struct approx square = at_most_float_max(multiply(exact((long double)g), exact((long double)g)));
    struct approx v = multiply(exact((long double)r), exact((long double)r));
    struct approx kept = {(long double)step->keep * v.value, (long double)step->keep * v.error}; // keep is 0 or 1
    // Without a subnormal to lose: v is 0 or at least about the floor.
    if (r == 0.0f)
        v = kept = exact(0.0L);
    struct approx gain = exact((long double)step->gain);
    struct approx moved = step->from_square ? add(square, multiply(gain, subtract(v, square)))
                                            : add(v, multiply(gain, subtract(square, kept)));

    terms->root_next = root_of(larger(moved, exact((long double)GD_SECOND_MOMENT_FLOOR)));
    if (g == 0.0f && r == 0.0f)
        terms->root_next = exact(0.0L);
    if (m) {
        struct approx scaled = multiply(terms->root_next, exact((long double)step->max_scale));
        terms->maximum_next = larger(exact((long double)*m), terms->root_next.value > 0.0L ? scaled : exact(0.0L));
    }
}

// The errors of the effective step and of what follows from it, of an active element.
static void follow_terms(const struct gd_second_moment_step *step, float g, struct approx w_before, struct approx w,
                         struct element_terms *terms) {
    struct approx x = multiply(w, exact((long double)step->scale));
    struct approx x0 = multiply(w_before, exact((long double)step->scale_before));
    struct approx p = inside_root(x, (long double)step->inside);
    struct approx p0 = inside_root(x0, (long double)step->inside_before);
    struct approx d = add(p, exact((long double)step->outside));
    struct approx d0 = add(p0, exact((long double)step->outside_before));
    struct approx q = divide(exact(1.0L), multiply(d, d0));
    struct approx numerator = exact((long double)step->numerator);
    struct approx root_fall = multiply(subtract(w_before, w), exact((long double)step->scale));
    struct approx scale_fall = multiply(w_before, exact((long double)step->scale_fall));
    bool inside = step->inside > 0.0f || step->inside_before > 0.0f;
    struct approx fall = inside ? subtract(p0, p) : add(root_fall, scale_fall);
    fall = add(fall, exact((long double)step->outside_fall));
    struct approx rise = multiply(exact((long double)step->numerator_rise), d);
    struct approx change = multiply(q, add(multiply(numerator, fall), rise));
    struct approx update;
    struct approx square = at_most_float_max(multiply(exact((long double)g), exact((long double)g)));
    struct approx vhat = add(multiply(x, x), exact((long double)step->accumulator));

    terms->step_size = multiply(numerator, multiply(d0, q));
    update = multiply(terms->step_size, exact((long double)g));
    terms->squared_update = multiply(update, update);
    terms->absolute_change = (struct approx){fabsl(change.value), change.error};
    terms->squared_change = multiply(change, change);
    terms->relative_square = divide(square, larger(vhat, exact((long double)step->relative_floor)));
}

// Replaces the values by what the optimiser's definition gives: e = a / (sqrt(vhat + eps_inside) + eps).
static void use_textbook_values(const struct gd_second_moment_step *step, float gradient, float root,
                                const float *maximum, struct element_terms *terms) {
    long double g = (long double)gradient;
    long double square = fminl(g * g, (long double)FLT_MAX);
    long double v = (long double)root * (long double)root;
    long double gain = (long double)step->gain;
    long double v_next = step->from_square ? gain * v + (1.0L - gain) * square
                                           : v * (1.0L - gain * (long double)step->keep) + gain * square;
    long double w = sqrtl(fmaxl(v_next, (long double)GD_SECOND_MOMENT_FLOOR));

    if (!terms->active && root == 0.0f)
        w = 0.0L;
    terms->root_next = replace_value(terms->root_next, w);
    if (maximum) {
        w = fmaxl((long double)*maximum, w * (long double)step->max_scale);
        terms->maximum_next = replace_value(terms->maximum_next, w);
    }
    if (!terms->active)
        return;

    long double w_before = root == 0.0f ? w : (long double)(maximum ? *maximum : root);
    w *= (long double)step->scale;
    w_before *= (long double)step->scale_before;
    long double d = sqrtl(w * w + (long double)step->inside) + (long double)step->outside;
    long double d0 = sqrtl(w_before * w_before + (long double)step->inside_before) + (long double)step->outside_before;
    long double e = (long double)step->numerator / d;
    long double e_before = ((long double)step->numerator - (long double)step->numerator_rise) / d0;
    long double vhat = w * w + (long double)step->accumulator;

    terms->step_size = replace_value(terms->step_size, e);
    terms->squared_update = replace_value(terms->squared_update, e * g * e * g);
    terms->absolute_change = replace_value(terms->absolute_change, fabsl(e - e_before));
    terms->squared_change = replace_value(terms->squared_change, (e - e_before) * (e - e_before));
    terms->relative_square =
        replace_value(terms->relative_square, square / fmaxl(vhat, (long double)step->relative_floor));
}

struct element_terms element_terms(const struct gd_second_moment_step *step, float gradient, float root,
                                   const float *maximum) {
    float g = cleaned(gradient);
    struct element_terms terms = {.active = g != 0.0f, .compared = g != 0.0f && root > 0.0f && step->has_before};

    follow_state(step, g, root, maximum, &terms);
    if (terms.active) {
        struct approx w = maximum ? terms.maximum_next : terms.root_next;
        struct approx w_before = root == 0.0f ? w : exact((long double)(maximum ? *maximum : root));
        follow_terms(step, g, w_before, w, &terms);
    }
    use_textbook_values(step, g, root, maximum, &terms);
    return terms;
}
