// Client messages for the tests of decode.h: each valid until a test changes it, packed, decoded and judged.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode.h"
#include "gradientd.pb-c.h"

enum {
    TABLE_BYTES_MAX = 2 << 20,
    SCALARS_MAX = 1025,
    PARAMETER_GROUPS_MAX = 4097,
    SQUARED_NORMS_MAX = 65,
    GROUP_NORMS_MAX = 65537,
    HPARAMS_MAX = 257
};

// The parts of one message point at one another.
struct message {
    Gradientd__ClientMessage client;

    Gradientd__Hello hello;
    Gradientd__OpenRun open_run;
    Gradientd__Stream stream;
    Gradientd__Stream *streams[2];
    Gradientd__Optimizer optimizer;
    Gradientd__ParameterGroup parameter_group[PARAMETER_GROUPS_MAX];
    Gradientd__ParameterGroup *parameter_groups[PARAMETER_GROUPS_MAX];
    Gradientd__StreamKind start_streams[3];
    char *patterns[65];
    Gradientd__Rule shadow_rules[7];
    Gradientd__RuleThresholds thresholds;  // in no message until a test puts it there
    Gradientd__HParam hparam[HPARAMS_MAX]; // see put_hparams()
    Gradientd__HParam *hparams[HPARAMS_MAX];
    char hparam_names[HPARAMS_MAX][8];

    Gradientd__Attach attach;
    Gradientd__Snapshot snapshot;
    Gradientd__StreamElements elements;
    Gradientd__StreamElements *elements_list[2];
    Gradientd__ParameterGroupStep rates[PARAMETER_GROUPS_MAX];
    Gradientd__ParameterGroupStep *rates_list[PARAMETER_GROUPS_MAX];
    Gradientd__Scalar scalar[SCALARS_MAX];
    Gradientd__Scalar *scalar_list[SCALARS_MAX];
    uint8_t bitmap[1];
    Gradientd__SquaredNorm squared_norm[SQUARED_NORMS_MAX];
    Gradientd__SquaredNorm *squared_norms[SQUARED_NORMS_MAX];
    double group_norms[GROUP_NORMS_MAX];
    Gradientd__StartVector start_vector;
    Gradientd__Scalars scalars;
    Gradientd__CloseRun close_run;
    Gradientd__StatusRequest status_request;

    char text[2048]; // for names a test makes
    uint8_t table[TABLE_BYTES_MAX];
    uint32_t table_bytes;
};

// The message under test; a maker starts it anew.
extern struct message m;

void make_hello(void);
void make_open_run(void); // two groups in two parameter groups; no optional field is set
void make_attach(void);
void make_snapshot(void);     // one stream, two parameter groups, one scalar; no optional field is set
void make_start_vector(void); // of the second moment, in its slot
void make_scalars(void);
void make_close_run(void);
void make_status_request(void);

// Adds a smaller batch's squared norm, of 8 examples, 2 in all and the first `n_per_group` of m.group_norms, to a
// Snapshot that says what its own batch size is.
void put_squared_norms(size_t n, size_t n_per_group);

// Adds an entry to the group table.
void put_group(uint64_t numel, uint32_t parameter_group, uint32_t step_lag, const char *name);

// Gives OpenRun `n` hyperparameters, numbers named "0", "1", ...
void put_hparams(size_t n);

// What the last decoding used and gave.
extern struct gd_arena arena;
extern struct gd_decoded decoded;
extern struct gd_error error;

void new_arena(void);
void free_arena(void);

// The message in packed form; free().
uint8_t *pack(size_t *ret_bytes);

// Decodes the message with its table, or other bytes. What comes of it is in `decoded`, free_decoded(), or in `error`.
int decode(void);
int decode_bytes(const uint8_t *message, size_t message_bytes, const uint8_t *payload, size_t payload_bytes);
void free_decoded(void);

// Whether `decoded` is as it was before the call.
bool is_untouched(void);

void expect_accepted(const char *what);

// `value` and `limit` are parts of the error's text.
void expect_refused(const char *what, enum gd_error_code code, const char *field, const char *value, const char *limit);

// One line of a table: what is changed in a message that `make` makes, and what comes of it.
#define ACCEPTED(make, ...)                                                                                            \
    do {                                                                                                               \
        make();                                                                                                        \
        __VA_ARGS__;                                                                                                   \
        expect_accepted(#__VA_ARGS__);                                                                                 \
    } while (0)
#define REFUSED(make, code, field, value, limit, ...)                                                                  \
    do {                                                                                                               \
        make();                                                                                                        \
        __VA_ARGS__;                                                                                                   \
        expect_refused(#__VA_ARGS__, code, field, value, limit);                                                       \
    } while (0)
#define INVALID(make, ...) REFUSED(make, GD_ERROR_INVALID, __VA_ARGS__)
#define UNSUPPORTED(make, ...) REFUSED(make, GD_ERROR_UNSUPPORTED, __VA_ARGS__)
#define SET(field, to) (void)(field = (to))
#define SET_OPTIONAL(message, field, to) (void)((message).has_##field = true, (message).field = (to))
