#include "session_memory.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "open_runs.h"

enum { PAGE_BYTES = 4096, PLACES = 256 };

static struct session_memory memories[OPEN_RUNS_LAST + 1];
static bool spoilt;

static void init(struct session_memory *memory, int open_run) {
    memory->open_run = open_runs_read(open_run);
    gd_layout_init(&memory->layout, memory->open_run);
    uint64_t bytes = memory->layout.total_bytes;
    memory->fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool made = memory->fd >= 0 && ftruncate(memory->fd, (off_t)bytes) == 0 &&
                fallocate(memory->fd, 0, 0, (off_t)bytes) == 0 &&
                fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
    assert(made);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
    assert(base != MAP_FAILED);
    memory->base = base;
}

void session_memories_init(void) {
    for (int open_run = OPEN_RUNS_FIRST; open_run <= OPEN_RUNS_LAST; open_run++)
        init(&memories[open_run], open_run);
}

// Up to the states: of new memory the daemon looks at the headers alone.
void session_memories_renew(void) {
    spoilt = false;
    for (int i = OPEN_RUNS_FIRST; i <= OPEN_RUNS_LAST; i++) {
        struct session_memory *memory = &memories[i];
        if (memory->has_hole && fallocate(memory->fd, 0, 0, (off_t)memory->layout.total_bytes) < 0)
            assert(false);
        if (memory->is_used)
            memset(memory->base, 0, memory->layout.state_offset[0]);
        memory->is_used = memory->has_hole = false;
    }
}

bool session_memories_are_spoilt(void) {
    return spoilt;
}

struct session_memory *session_memory_of(int open_run) {
    memories[open_run].is_used = true;
    return &memories[open_run];
}

void session_memory_rewrite(int open_run, uint8_t place, uint8_t value) {
    struct session_memory *memory = session_memory_of(open_run);
    uint64_t stride = memory->layout.state_offset[1] / PLACES / sizeof(uint64_t); // headers, words, a state
    spoilt = true;
    memset(memory->base + place * stride * sizeof(uint64_t), value, sizeof(uint64_t));
}

void session_memory_punch(int open_run, uint8_t page) {
    struct session_memory *memory = session_memory_of(open_run);
    spoilt = memory->has_hole = true;
    fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)page * PAGE_BYTES, PAGE_BYTES);
}
