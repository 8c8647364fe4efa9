// Small messages that ask the daemon for much memory or time.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bytes.h"
#include "gradientd/protocol.h"
#include "hostile.h"
#include "scratch.h"

// ---- messages that are large when unpacked

enum { BOMB_BYTES = 1000000 };

// Repeated entries, as few bytes each as the wire has for them, inside an otherwise right OpenRun or a Scalars.
static const struct bomb {
    const char *entry;
    size_t entry_bytes;
    bool in_scalars;
} bombs[] = {
    {"\x3a\x00", 2, false},                            // parameter_groups
    {"\x2a\x04\x08\x01\x10\x01", 6, false},            // streams
    {"\x8a\x01\x00", 3, false},                        // include
    {"\xaa\x01\x04\x0a\x00\x12\x00", 7, false},        // hparams
    {"\xa0\x06\x00", 3, false},                        // an unknown field
    {"\x78\x01", 2, false},                            // shadow_rules
    {"\x22\x07\x0a\x00\x15\x00\x00\x00\x00", 9, true}, // scalars
};

static size_t write_varint(uint8_t *at, size_t value) {
    size_t bytes = 0;
    for (; value > 0x7f; value >>= 7)
        at[bytes++] = (uint8_t)(value | 0x80);
    at[bytes++] = (uint8_t)value;
    return bytes;
}

// What stands before the entries.
static size_t write_head(const struct bomb *bomb, uint8_t head[1024]) {
    static const uint8_t scalars[] = {0x08, 1, 0x10, 1, 0x19, 0, 0, 0, 0, 0, 0, 0, 0};
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    if (!bomb->in_scalars)
        return gradientd__open_run__pack(&open_run.message, head);
    memcpy(head, scalars, sizeof(scalars));
    return sizeof(scalars);
}

// A frame around both; returns its bytes.
static size_t write_bomb(const struct bomb *bomb, uint8_t *frame) {
    uint8_t head[1024];
    size_t head_bytes = write_head(bomb, head), entries = BOMB_BYTES / bomb->entry_bytes;
    size_t body_bytes = head_bytes + entries * bomb->entry_bytes;
    uint8_t *at = frame + GRADIENTD_FRAME_HEADER_BYTES;
    *at++ = bomb->in_scalars ? 5 << 3 | 2 : 2 << 3 | 2;
    at += write_varint(at, body_bytes);
    memcpy(at, head, head_bytes);
    at += head_bytes;
    for (size_t i = 0; i < entries; i++, at += bomb->entry_bytes)
        memcpy(at, bomb->entry, bomb->entry_bytes);
    gd_write_u32le(frame, (uint32_t)(at - frame) - GRADIENTD_FRAME_HEADER_BYTES);
    gd_write_u32le(frame + 4, 0);
    return (size_t)(at - frame);
}

ATTACK(unpacking) {
    static uint8_t frame[BOMB_BYTES + 2048];
    while (attacker_goes_on(attacker)) {
        const struct bomb *bomb = &bombs[stress_random_below(&attacker->random, sizeof(bombs) / sizeof(bombs[0]))];
        struct raw_client client = attacker_connect(attacker, bomb->in_scalars ? RAW_ATTACHED : RAW_WELCOME);
        size_t bytes = write_bomb(bomb, frame);
        raw_client_send_bytes(&client, frame, bytes, NULL, 0);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__PROTOCOL, "message");
        attacker_did(attacker, 1);
    }
}

// ---- elements that are large when inflated

enum { INFLATED_BYTES = 64 << 20 };

static void send_deflated(struct raw_client *client, const uint8_t *payload, size_t bytes) {
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_snapshot_make_inline(&snapshot, bytes, true);
    raw_client_send_inline(client, &snapshot, payload, bytes);
}

// 64 MiB of zeros where 32 bytes are expected.
ATTACK(inflating) {
    uLongf bytes = compressBound(INFLATED_BYTES);
    uint8_t *zeros = calloc(1, INFLATED_BYTES), *deflated = malloc(bytes);
    cr_assert(zeros && deflated && compress2(deflated, &bytes, zeros, INFLATED_BYTES, Z_BEST_SPEED) == Z_OK);
    free(zeros);
    do {
        struct raw_client client = attacker_connect(attacker, RAW_INLINE);
        send_deflated(&client, deflated, bytes);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes");
        attacker_did(attacker, 1);
    } while (attacker_goes_on(attacker)); // deflating may have taken all the time
    free(deflated);
}

// A stream of blocks with nothing in them, which never comes to what is expected.
ATTACK(inflating_nothing) {
    enum { BLOCKS = 1 << 20 };
    static const uint8_t header[] = {0x78, 0x01}, block[] = {0, 0, 0, 0xff, 0xff};
    static uint8_t payload[sizeof(header) + BLOCKS * sizeof(block)];
    memcpy(payload, header, sizeof(header));
    for (size_t i = 0; i < BLOCKS; i++)
        memcpy(payload + sizeof(header) + i * sizeof(block), block, sizeof(block));
    while (attacker_goes_on(attacker)) {
        struct raw_client client = attacker_connect(attacker, RAW_INLINE);
        send_deflated(&client, payload, sizeof(payload));
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__INVALID, "streams.deflated");
        attacker_did(attacker, 1);
    }
}

// ---- OpenRuns

enum { TABLE_KIB = 24 << 10 }; // what the names of 65,536 groups take of the heap, about

static uint8_t table[GRADIENTD_TABLE_BYTES_MAX];

// Fills `table` with groups whose names have as many bytes as they can; returns its bytes.
static size_t fill_table(uint32_t groups, uint64_t numel) {
    uint8_t *at = table;
    for (uint32_t i = 0; i < groups; i++) {
        gd_write_u64le(at, numel);
        gd_write_u32le(at + 8, 0);
        gd_write_u32le(at + 12, 0);
        at[16] = GRADIENTD_NAME_BYTES_MAX;
        memset(at + GRADIENTD_TABLE_ENTRY_BYTES, 'a', GRADIENTD_NAME_BYTES_MAX);
        at += GRADIENTD_TABLE_ENTRY_BYTES + GRADIENTD_NAME_BYTES_MAX;
    }
    return (size_t)(at - table);
}

// Sends an OpenRun of the `table`.
static void open_table(struct raw_client *client, struct raw_open_run *open_run, uint32_t groups, size_t table_bytes) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = &open_run->message;
    open_run->message.groups = groups;
    raw_client_send(client, &message, table, table_bytes);
}

// One group or as many as can be, so large that they are over a limit.
ATTACK(huge) {
    static const struct {
        uint32_t groups;
        uint64_t numel;
        Gradientd__ErrorCode code;
        const char *field;
    } kinds[] = {
        {1, UINT64_C(1) << 40, GRADIENTD__ERROR_CODE__QUOTA, "memory"},
        {1, UINT64_C(1) << 34, GRADIENTD__ERROR_CODE__QUOTA, "memory"},
        {1, (UINT64_C(1) << 40) + 1, GRADIENTD__ERROR_CODE__INVALID, "group.numel"},
        {1, UINT64_MAX, GRADIENTD__ERROR_CODE__INVALID, "group.numel"},
        {4, UINT64_C(1) << 62, GRADIENTD__ERROR_CODE__INVALID, "group.numel"}, // 0 where the sum wraps round
        {GRADIENTD_GROUPS_MAX, UINT64_C(1) << 20, GRADIENTD__ERROR_CODE__QUOTA, "memory"},
        {GRADIENTD_GROUPS_MAX, UINT64_C(1) << 48, GRADIENTD__ERROR_CODE__INVALID, "group.numel"},
    };
    while (attacker_goes_on(attacker)) {
        uint32_t kind = stress_random_below(&attacker->random, sizeof(kinds) / sizeof(kinds[0]));
        struct raw_client client = attacker_connect(attacker, RAW_WELCOME);
        struct raw_open_run open_run;
        raw_open_run_init(&open_run);
        open_table(&client, &open_run, kinds[kind].groups, fill_table(kinds[kind].groups, kinds[kind].numel));
        attacker_expect_error(&client, kinds[kind].code, kinds[kind].field);
        attacker_did(attacker, 1);
    }
}

// As many groups as can be, all they say being right, again and again.
ATTACK(groups) {
    size_t table_bytes = fill_table(GRADIENTD_GROUPS_MAX, 1);
    while (attacker_goes_on(attacker)) {
        struct raw_client client = attacker_connect(attacker, RAW_WELCOME);
        struct raw_open_run open_run;
        raw_open_run_init(&open_run);
        open_table(&client, &open_run, GRADIENTD_GROUPS_MAX, table_bytes);
        Gradientd__DaemonMessage *message = raw_client_receive(&client);
        cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
        gradientd__daemon_message__free_unpacked(message, NULL);
        raw_client_close(&client);
        attacker_did(attacker, 1);
    }
}

// Opens a run of `n_groups` groups with patterns that take long to fail.
static struct raw_client open_patterns(const struct attacker *attacker, uint32_t n_groups, size_t n_patterns) {
    char pattern[GRADIENTD_NAME_BYTES_MAX + 1];
    char *patterns[GRADIENTD_PATTERNS_MAX];
    for (size_t i = 0; i + 1 < sizeof(pattern); i++)
        pattern[i] = i % 2 ? 'a' : '*';
    pattern[sizeof(pattern) - 2] = 'b';
    pattern[sizeof(pattern) - 1] = '\0';
    for (size_t i = 0; i < n_patterns; i++)
        patterns[i] = pattern;
    struct raw_client client = attacker_connect(attacker, RAW_WELCOME);
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    open_run.message.has_per_group = open_run.message.per_group = true;
    open_run.message.n_include = n_patterns;
    open_run.message.include = patterns;
    open_table(&client, &open_run, n_groups, fill_table(n_groups, 1));
    return client;
}

// Patterns and names that are too many together, and the most that may be.
ATTACK(patterns) {
    enum { MOST_GROUPS = (1 << 28) / GRADIENTD_NAME_BYTES_MAX / GRADIENTD_NAME_BYTES_MAX };
    while (attacker_goes_on(attacker)) {
        struct raw_client client = open_patterns(attacker, GRADIENTD_GROUPS_MAX, GRADIENTD_PATTERNS_MAX);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__INVALID, "include");
        client = open_patterns(attacker, MOST_GROUPS, 1);
        Gradientd__DaemonMessage *message = raw_client_receive(&client);
        cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
        gradientd__daemon_message__free_unpacked(message, NULL);
        raw_client_close(&client);
        attacker_did(attacker, 1);
    }
}

// ---- tags

// A message of as many scalars as can be, with names as long as can be.
static void send_tags(struct raw_client *client, uint64_t sequence) {
    static char names[GRADIENTD_USER_TAGS_MAX][GRADIENTD_NAME_BYTES_MAX + 1];
    static Gradientd__Scalar scalars[GRADIENTD_USER_TAGS_MAX];
    Gradientd__Scalar *pointers[GRADIENTD_USER_TAGS_MAX];
    for (size_t i = 0; i < GRADIENTD_USER_TAGS_MAX; i++) {
        memset(names[i], 'x', GRADIENTD_NAME_BYTES_MAX);
        int bytes = snprintf(names[i], sizeof(names[i]), "%llu/%zu/", (unsigned long long)sequence, i);
        names[i][bytes] = 'x';
        scalars[i] = (Gradientd__Scalar)GRADIENTD__SCALAR__INIT;
        scalars[i].tag = names[i];
        pointers[i] = &scalars[i];
    }
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    body.sequence = sequence;
    body.wall_time = 1.7e9;
    body.step = 1;
    body.n_scalars = GRADIENTD_USER_TAGS_MAX;
    body.scalars = pointers;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;
    raw_client_send(client, &message, NULL, 0);
}

// All the tags a run may have, and one more.
ATTACK(tags) {
    while (attacker_goes_on(attacker)) {
        struct raw_client client = attacker_connect(attacker, RAW_ATTACHED);
        send_tags(&client, 1);
        send_tags(&client, 2);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__QUOTA, "scalars.tag");
        attacker_did(attacker, 1);
    }
}

static const struct attack all[] = {
    {"unpacking", unpacking, .attackers = 3, .options = attacker_room},
    {"inflating", inflating, .attackers = 2, .options = attacker_room},
    {"inflating_nothing", inflating_nothing, .attackers = 2, .options = attacker_room},
    {"huge", huge, .attackers = 3, .options = attacker_room, .keeps_kib = TABLE_KIB},
    {"groups", groups, .attackers = 2, .options = attacker_room, .keeps_kib = TABLE_KIB},
    {"patterns", patterns, .attackers = 2, .options = attacker_room, .keeps_kib = TABLE_KIB},
    {"tags", tags, .attackers = 3, .options = attacker_room},
};

struct attacks attacks_bombs(void) {
    return ATTACKS(all);
}
