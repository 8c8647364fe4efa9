#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "gradientd/protocol.h"
#include "offences.h"

static char star[] = "*", no_pattern[] = "";
static char long_pattern[GRADIENTD_NAME_BYTES_MAX + 2]; // one byte more than a pattern may have

#define SELECT(name, change)                                                                                           \
    OFFENCE(name) {                                                                                                    \
        struct raw_open_run request;                                                                                   \
        raw_open_run_init(&request);                                                                                   \
        Gradientd__OpenRun *open_run = &request.message;                                                               \
        change;                                                                                                        \
        raw_client_send_open_run(client, &request);                                                                    \
    }

SELECT(include_empty, open_run->n_include = 1; open_run->include = (char *[]){no_pattern})
SELECT(include_long, open_run->n_include = 1; open_run->include = (char *[]){long_pattern})
SELECT(exclude_empty, open_run->n_exclude = 2; open_run->exclude = ((char *[]){star, no_pattern}))
SELECT(exclude_long, open_run->n_exclude = 1; open_run->exclude = (char *[]){long_pattern})
SELECT(fold_depth_zero, open_run->has_fold_depth = true)
SELECT(fold_depth_far, open_run->has_fold_depth = true; open_run->fold_depth = 256)

#define PATTERN(name, text)                                                                                            \
    static char pattern_##name[] = text;                                                                               \
    SELECT(include_##name, open_run->n_include = 1; open_run->include = (char *[]){pattern_##name})                    \
    SELECT(exclude_##name, open_run->n_exclude = 1; open_run->exclude = (char *[]){pattern_##name})
OFFENCES_TEXTS(PATTERN)

static char **stars(size_t n) {
    static char *patterns[GRADIENTD_PATTERNS_MAX + 1];
    for (size_t i = 0; i < n; i++)
        patterns[i] = star;
    return patterns;
}

SELECT(include_many, open_run->n_include = GRADIENTD_PATTERNS_MAX + 1; open_run->include = stars(open_run->n_include))
SELECT(exclude_many, open_run->n_exclude = GRADIENTD_PATTERNS_MAX + 1; open_run->exclude = stars(open_run->n_exclude))

// ---- many groups

// Opens a run of `n` groups of one element, whose names have `name_bytes` bytes and are all different.
static void send_groups(struct raw_client *client, struct raw_open_run *request, uint32_t n, size_t name_bytes) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    size_t entry_bytes = GRADIENTD_TABLE_ENTRY_BYTES + name_bytes;
    uint8_t *table = calloc(n, entry_bytes);
    cr_assert(table);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = table + i * entry_bytes;
        char number[16];
        snprintf(number, sizeof(number), "%05u", i);
        gd_write_u64le(entry, 1);
        entry[16] = (uint8_t)name_bytes;
        memset(entry + GRADIENTD_TABLE_ENTRY_BYTES, 'a', name_bytes);
        memcpy(entry + entry_bytes - 5, number, 5);
    }
    request->message.groups = n;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = &request->message;
    raw_client_send(client, &message, table, n * entry_bytes);
    free(table);
}

OFFENCE(shown_many) {
    struct raw_open_run request;
    raw_open_run_init(&request);
    request.message.has_per_group = request.message.per_group = true;
    send_groups(client, &request, GRADIENTD_PER_GROUP_MAX + 1, 5);
}

// 64 patterns of 255 bytes against 66 KB of names: 1.08e9 steps, were they taken.
OFFENCE(matched_long) {
    static char *patterns[GRADIENTD_PATTERNS_MAX];
    struct raw_open_run request;
    raw_open_run_init(&request);
    for (size_t i = 0; i < GRADIENTD_PATTERNS_MAX; i++)
        patterns[i] = long_pattern + 1;
    request.message.n_include = GRADIENTD_PATTERNS_MAX;
    request.message.include = patterns;
    send_groups(client, &request, 260, GRADIENTD_NAME_BYTES_MAX);
}

#define INVALID(function, field, says)                                                                                 \
    { #function, RAW_WELCOME, function, GRADIENTD__ERROR_CODE__INVALID, field, says }
#define PATTERN_IS(name, text)                                                                                         \
    INVALID(include_##name, "include", "it must be 1 to 255 bytes of UTF-8 without control characters"),               \
        INVALID(exclude_##name, "exclude", "it must be 1 to 255 bytes of UTF-8 without control characters"),

static const struct offence selecting[] = {
    INVALID(include_empty, "include", "include[0] has 0 bytes; it must be 1 to 255 bytes of UTF-8"),
    INVALID(include_long, "include", "include[0] has 256 bytes; it must be 1 to 255 bytes of UTF-8"),
    INVALID(exclude_empty, "exclude", "exclude[1] has 0 bytes; it must be 1 to 255 bytes of UTF-8"),
    INVALID(exclude_long, "exclude", "exclude[0] has 256 bytes; it must be 1 to 255 bytes of UTF-8"),
    INVALID(include_many, "include", "include has 65 entries, the limit is 64"),
    INVALID(exclude_many, "exclude", "exclude has 65 entries, the limit is 64"),
    INVALID(fold_depth_zero, "fold_depth", "fold_depth is 0, the limits are 1 and 255"),
    INVALID(fold_depth_far, "fold_depth", "fold_depth is 256, the limits are 1 and 255"),
    OFFENCES_TEXTS(PATTERN_IS) INVALID(shown_many, "per_group", "per_group is true for 4097 names, the limit is 4096"),
    INVALID(matched_long, "include", "include and exclude have 16320 bytes and the groups' names 66300; the limit"),
};

struct offences offences_selecting(void) {
    memset(long_pattern, '*', sizeof(long_pattern) - 1);
    return OFFENCES(selecting);
}
