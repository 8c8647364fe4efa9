// The charts of the Custom Scalars dashboard, which put side by side what is read together.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Of what gd_charts_pack() writes, whatever is shown.
enum { GD_CHARTS_BYTES_MAX = 4096 };

// Writes a serialised tensorboard.Layout of the charts whose tags a run that shows `shown` (enum gd_shown) can have.
// Returns its bytes; `ret_layout` may be NULL. Pure.
size_t gd_charts_pack(uint32_t shown, uint8_t *ret_layout);
