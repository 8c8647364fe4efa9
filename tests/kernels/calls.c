#include "calls.h"

#include <inttypes.h>

#include "pools.h"

void kernel_call_init(struct kernel_call *call, const char *sweep, uint64_t number, struct call_shape shape,
                      uint64_t *state) {
    *call = (struct kernel_call){.sweep = sweep, .number = number, .shape = shape};
    call->gradient = pool_elements(shape.type, shape.distribution, shape.elems, state);
    for (uint32_t lag = 0; lag < shape.lags; lag++) {
        if (random_below(state, 4) >= shape.missing_quarters)
            call->history[lag] = pool_elements(shape.type, shape.distribution, shape.elems, state);
    }
    if (shape.form->state)
        pool_state(shape.elems, state, &call->root, &call->maximum);
    if (!shape.form->maximum)
        call->maximum = NULL;
}

static void print_lags(const struct kernel_call *call, FILE *to) {
    fprintf(to, "%" PRIu32 " lags", call->shape.lags);
    for (uint32_t lag = 0; lag < call->shape.lags; lag++) {
        if (!call->history[lag])
            fprintf(to, " -%" PRIu32, lag + 1);
    }
}

static void print_special(const struct special *special, FILE *to) {
    fprintf(to, ", %s at %zu of ", special->name, special->index);
    if (special->stream >= 0)
        fprintf(to, "lag %d", special->stream + 1);
    else
        fputs(special->stream == IN_GRADIENT ? "the gradient" : "root", to);
}

void kernel_call_print(const struct kernel_call *call, FILE *to) {
    const struct call_shape *shape = &call->shape;

    fprintf(to, "%s, case %" PRIu64 ": %zu %s elements at offset %" PRIu32 ", each lag %" PRIu32 " further, ",
            call->sweep, call->number, shape->elems, element_type_names[shape->type], shape->offset,
            shape->offset_step);
    print_lags(call, to);
    fprintf(to, ", rule \"%s\"%s, %s values", shape->form->name, shape->past_caches ? " past caches" : "",
            distribution_names[shape->distribution]);
    for (uint32_t i = 0; i < call->n_specials; i++)
        print_special(&call->specials[i], to);
    fputc('\n', to);
}
