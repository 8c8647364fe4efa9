#include "placement.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    STATE_ALIGNMENT = 64,
    MARGIN_BYTES = 256,
    MARGIN_BYTE = 0xc5, // -6328 in f32 and bf16, -5.77 in f16
};

#ifdef __has_feature // clang
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__) // gcc
#define ADDRESS_SANITIZER
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

// A region per buffer: a page that faults, memory for any chunk at any offset, another page.
static struct {
    size_t page_bytes, buffer_bytes, region_bytes;
    uint8_t *regions;
} guarded;

void placement_init(void) {
    size_t most = (GD_CHUNK_ELEMS + OFFSETS) * sizeof(float);

    guarded.page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    guarded.buffer_bytes = (most + guarded.page_bytes - 1) / guarded.page_bytes * guarded.page_bytes;
    guarded.region_bytes = guarded.buffer_bytes + 2 * guarded.page_bytes;
    guarded.regions =
        mmap(NULL, BUFFERS * guarded.region_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (guarded.regions == MAP_FAILED)
        abort();
    for (size_t i = 0; i < BUFFERS; i++) {
        uint8_t *buffer = guarded.regions + i * guarded.region_bytes + guarded.page_bytes;
        if (mprotect(buffer, guarded.buffer_bytes, PROT_READ | PROT_WRITE) != 0)
            abort();
    }
}

static uint8_t *memory_of(int buffer) {
    return guarded.regions + (size_t)buffer * guarded.region_bytes + guarded.page_bytes;
}

// ---- Margins --------------------------------------------------------------------------------------------------------

struct margins {
    uint8_t *before, *behind;
    size_t before_bytes, behind_bytes;
};

static size_t at_most_a_margin(size_t bytes) {
    return bytes < MARGIN_BYTES ? bytes : MARGIN_BYTES;
}

static struct margins margins_of(const struct placed_call *placed, int index) {
    const struct placed_buffer *buffer = &placed->buffers[index];
    uint8_t *memory = memory_of(index);
    uint8_t *end = buffer->start + buffer->bytes;
    size_t before_bytes = at_most_a_margin((size_t)(buffer->start - memory));

    return (struct margins){
        .before = buffer->start - before_bytes,
        .before_bytes = before_bytes,
        .behind = end,
        .behind_bytes = at_most_a_margin((size_t)(memory + guarded.buffer_bytes - end)),
    };
}

static void fill_margins(const struct placed_call *placed, int index) {
    struct margins margins = margins_of(placed, index);

    memset(margins.before, MARGIN_BYTE, margins.before_bytes);
    memset(margins.behind, MARGIN_BYTE, margins.behind_bytes);
}

static bool is_margin(const uint8_t *bytes, size_t n) {
    return n == 0 || (bytes[0] == MARGIN_BYTE && memcmp(bytes, bytes + 1, n - 1) == 0);
}

static bool has_margins(const struct placed_call *placed, int index) {
    struct margins margins = margins_of(placed, index);

    return is_margin(margins.before, margins.before_bytes) && is_margin(margins.behind, margins.behind_bytes);
}

// ---- Placing --------------------------------------------------------------------------------------------------------

static void *place_buffer(struct placed_call *placed, int index, uint8_t *start, size_t bytes, const void *contents) {
    placed->buffers[index] = (struct placed_buffer){start, bytes, contents};
    fill_margins(placed, index);
    if (contents)
        memcpy(start, contents, bytes);
    return start;
}

static const void *place_stream(struct placed_call *placed, uint32_t stream, int index, const void *contents) {
    const struct kernel_call *call = placed->call;
    size_t element_bytes = gd_element_bytes(call->shape.type);
    size_t bytes = call->shape.elems * element_bytes;
    uint32_t offset = (call->shape.offset + stream * call->shape.offset_step) % OFFSETS;
    uint8_t *memory = memory_of(index);
    uint8_t *start =
        placed->placement == AT_FRONT ? memory + offset * element_bytes : memory + guarded.buffer_bytes - bytes;

    return place_buffer(placed, index, start, bytes, contents);
}

static float *place_state(struct placed_call *placed, int index, const float *contents) {
    size_t bytes = placed->call->shape.elems * sizeof(float);
    size_t aligned_bytes = (bytes + STATE_ALIGNMENT - 1) / STATE_ALIGNMENT * STATE_ALIGNMENT;
    uint8_t *memory = memory_of(index);
    uint8_t *start = placed->placement == AT_FRONT ? memory : memory + guarded.buffer_bytes - aligned_bytes;

    return place_buffer(placed, index, start, bytes, contents);
}

void place_call(const struct kernel_call *call, enum placement placement, struct placed_call *ret_placed) {
    struct gd_chunk *chunk = &ret_placed->chunk;

    *ret_placed = (struct placed_call){
        .call = call,
        .placement = placement,
        .chunk = {.elems = call->shape.elems,
                  .type = call->shape.type,
                  .lags = call->shape.lags,
                  .past_caches = call->shape.past_caches},
    };
    chunk->gradient = place_stream(ret_placed, 0, BUFFER_GRADIENT, call->gradient);
    for (uint32_t i = 0; i < call->shape.lags; i++) {
        if (call->history[i])
            chunk->history[i] = place_stream(ret_placed, i + 1, BUFFER_FIRST_LAG + (int)i, call->history[i]);
    }
    if (call->root) {
        chunk->step = &call->shape.form->step;
        chunk->root = place_state(ret_placed, BUFFER_ROOT, call->root);
        chunk->root_next = place_state(ret_placed, BUFFER_ROOT_NEXT, NULL);
    }
    if (call->maximum) {
        chunk->maximum = place_state(ret_placed, BUFFER_MAXIMUM, call->maximum);
        chunk->maximum_next = place_state(ret_placed, BUFFER_MAXIMUM_NEXT, NULL);
    }
}

// ---- The address sanitizer ------------------------------------------------------------------------------------------

#ifdef ADDRESS_SANITIZER
static struct kernel_call poisoned_call;

static void print_poisoned_call(void) {
    kernel_call_print(&poisoned_call, stderr);
}

static void poison(bool poisoned, const uint8_t *bytes, size_t n) {
    if (poisoned)
        __asan_poison_memory_region(bytes, n);
    else
        __asan_unpoison_memory_region(bytes, n);
}

void placed_call_poison_margins(const struct placed_call *placed, bool poisoned) {
    poisoned_call = *placed->call;
    __sanitizer_set_death_callback(print_poisoned_call); // a finding ends the process
    for (int i = 0; i < BUFFERS; i++) {
        if (!placed->buffers[i].start)
            continue;
        struct margins margins = margins_of(placed, i);
        poison(poisoned, margins.before, margins.before_bytes);
        poison(poisoned, margins.behind, margins.behind_bytes);
    }
}
#else
void placed_call_poison_margins(const struct placed_call *placed, bool poisoned) {
    (void)placed;
    (void)poisoned;
}
#endif

// ---- What a kernel did to it ----------------------------------------------------------------------------------------

void placed_call_clear_outputs(const struct placed_call *placed) {
    for (int i = BUFFER_ROOT_NEXT; i <= BUFFER_MAXIMUM_NEXT; i++) {
        if (placed->buffers[i].start)
            memset(placed->buffers[i].start, MARGIN_BYTE, placed->buffers[i].bytes);
    }
}

int placed_call_changed_buffer(const struct placed_call *placed) {
    for (int i = 0; i < BUFFERS; i++) {
        const struct placed_buffer *buffer = &placed->buffers[i];
        if (!buffer->start)
            continue;
        if (!has_margins(placed, i) ||
            (buffer->contents && memcmp(buffer->start, buffer->contents, buffer->bytes) != 0))
            return i;
    }
    return -1;
}

void print_buffer(int buffer, FILE *to) {
    static const char *const names[BUFFER_FIRST_LAG] = {"the gradient", "root", "maximum", "root_next", "maximum_next"};

    if (buffer < BUFFER_FIRST_LAG)
        fputs(names[buffer], to);
    else
        fprintf(to, "lag %d", buffer - BUFFER_FIRST_LAG + 1);
}

void print_address(const void *address, FILE *to) {
    uintptr_t from_regions = (uintptr_t)address - (uintptr_t)guarded.regions;
    uintptr_t buffer = from_regions / guarded.region_bytes;
    uintptr_t from_region = from_regions % guarded.region_bytes;

    if ((uintptr_t)address < (uintptr_t)guarded.regions || buffer >= BUFFERS) {
        fprintf(to, "%p", address);
    } else if (from_region < guarded.page_bytes) {
        fprintf(to, "%" PRIuPTR " bytes before the memory of ", guarded.page_bytes - from_region);
        print_buffer((int)buffer, to);
    } else {
        fprintf(to, "%" PRIuPTR " bytes behind the memory of ",
                from_region - guarded.page_bytes - guarded.buffer_bytes);
        print_buffer((int)buffer, to);
    }
}
