#include "chunk_record.h"

#include <string.h>

void gd_chunk_record_keep(struct gd_chunk_record *record, const struct gd_step_sums *sums, uint32_t max_lag) {
    *record = (struct gd_chunk_record){
        .squared_norm = sums->squared_norm,
        .A = sums->A,
        .B = sums->B,
        .C = sums->C,
        .D = sums->D,
        .relative_square = sums->relative_square,
        .max_abs = sums->max_abs,
        .step_size_min = sums->step_size_min,
        .non_finite = (uint32_t)sums->non_finite,
        .active = (uint32_t)sums->active,
    };
    memcpy(record->dot, sums->dot, max_lag * sizeof(*record->dot));
}

void gd_chunk_record_add(const struct gd_chunk_record *record, uint32_t elems, uint32_t max_lag,
                         struct gd_step_sums *sums) {
    sums->elements += elems;
    sums->zeros += elems - record->non_finite - record->active;
    sums->non_finite += record->non_finite;
    sums->active += record->active;
    sums->squared_norm += record->squared_norm;
    for (uint32_t i = 0; i < max_lag; i++)
        sums->dot[i] += record->dot[i];
    sums->A += record->A;
    sums->B += record->B;
    sums->C += record->C;
    sums->D += record->D;
    sums->relative_square += record->relative_square;
    if (record->max_abs > sums->max_abs)
        sums->max_abs = record->max_abs;
    if (record->step_size_min < sums->step_size_min)
        sums->step_size_min = record->step_size_min;
}
