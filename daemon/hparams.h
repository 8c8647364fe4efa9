// What TensorBoard's HParams dashboard is told of a run: serialised tensorboard.HParamsPluginData.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"

// What the daemon knows of a run by itself; NaN: there is none. The trainer's of the same name take its place.
struct gd_known_hparams {
    enum gd_rule rule;
    double learning_rate;
    double beta2;
    double eps;
    double batch_size;
};

// Of `rule` with a parameter group's rates: those of them that the rule has. No batch size.
struct gd_known_hparams gd_hparams_known(enum gd_rule rule, const struct gd_adam_rates *rates);

// Writes what tells of the run's begin. Returns its bytes; `ret_content` may be NULL. Pure, as the next one.
size_t gd_hparams_pack_start(const struct gd_hparams *trainers, const struct gd_known_hparams *known, double start_time,
                             uint8_t *ret_content);

// At least what that returns for a run, whatever its rates.
size_t gd_hparams_start_bytes_max(const struct gd_hparams *trainers);

// Writes what tells of its end.
enum { GD_HPARAMS_END_BYTES_MAX = 32 };
size_t gd_hparams_pack_end(bool failed, double end_time, uint8_t ret_content[static GD_HPARAMS_END_BYTES_MAX]);
