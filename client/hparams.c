#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "text.h"

static int check_text(size_t index, const char *text, struct gradientd_error *ret_error) {
    if (!text)
        return client_fail(ret_error, EINVAL, "hparams[%zu].text is missing; its kind is TEXT", index);
    size_t bytes = strlen(text);
    if (bytes <= GRADIENTD_HPARAM_TEXT_BYTES_MAX && gd_text_is_clean(text, bytes))
        return 0;
    return client_fail(ret_error, EINVAL,
                       "hparams[%zu].text has %zu bytes; it must be at most %d bytes of UTF-8 without control "
                       "characters",
                       index, bytes, GRADIENTD_HPARAM_TEXT_BYTES_MAX);
}

static int check_value(size_t index, const struct gradientd_hparam *hparam, struct gradientd_error *ret_error) {
    switch (hparam->kind) {
    case GRADIENTD_HPARAM_NUMBER:
        if (isfinite(hparam->number))
            return 0;
        return client_fail(ret_error, EINVAL, "hparams[%zu].number is %f, it must be finite", index, hparam->number);
    case GRADIENTD_HPARAM_TEXT:
        return check_text(index, hparam->text, ret_error);
    case GRADIENTD_HPARAM_FLAG:
        return 0;
    default:
        return client_fail(ret_error, EINVAL, "hparams[%zu].kind is %d, the limits are 0 and %d", index,
                           (int)hparam->kind, GRADIENTD_HPARAM_FLAG);
    }
}

static int check_hparam(const struct gradientd_hparam *hparams, size_t index, struct gradientd_error *ret_error) {
    int result = client_check_name("hparams", index, ".name", hparams[index].name, ret_error);
    for (size_t i = 0; result == 0 && i < index; i++)
        if (strcmp(hparams[i].name, hparams[index].name) == 0)
            result =
                client_fail(ret_error, EINVAL, "hparams[%zu].name is that of hparams[%zu], %s; each must be there once",
                            index, i, hparams[index].name);
    return result < 0 ? result : check_value(index, &hparams[index], ret_error);
}

int client_check_hparams(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    const char *group = options->hparams_group;
    if (options->n_hparams > GRADIENTD_HPARAMS_MAX)
        return client_fail(ret_error, EINVAL, "n_hparams is %zu, the limit is %d", options->n_hparams,
                           GRADIENTD_HPARAMS_MAX);
    if (options->n_hparams > 0 && !options->hparams)
        return client_fail(ret_error, EINVAL, "hparams is missing, n_hparams is %zu", options->n_hparams);
    for (size_t i = 0; i < options->n_hparams; i++) {
        int result = check_hparam(options->hparams, i, ret_error);
        if (result < 0)
            return result;
    }
    if (group && !gd_text_is_name(group))
        return client_fail(ret_error, EINVAL,
                           "hparams_group has %zu bytes; it must be 1 to %d bytes of UTF-8 without control characters",
                           strlen(group), GRADIENTD_NAME_BYTES_MAX);
    return 0;
}

// protobuf-c's fields are not const, and nothing writes to them before the message is packed.
static char *borrow(const char *text) {
    union {
        const char *borrowed;
        char *field;
    } pointer = {.borrowed = text};
    return pointer.field;
}

static void describe(const struct gradientd_hparam *given, Gradientd__HParam *ret_hparam) {
    gradientd__hparam__init(ret_hparam);
    ret_hparam->name = borrow(given->name);
    if (given->kind == GRADIENTD_HPARAM_TEXT) {
        ret_hparam->value_case = GRADIENTD__HPARAM__VALUE_TEXT;
        ret_hparam->text = borrow(given->text);
    } else if (given->kind == GRADIENTD_HPARAM_FLAG) {
        ret_hparam->value_case = GRADIENTD__HPARAM__VALUE_FLAG;
        ret_hparam->flag = given->flag;
    } else {
        ret_hparam->value_case = GRADIENTD__HPARAM__VALUE_NUMBER;
        ret_hparam->number = given->number;
    }
}

int client_describe_hparams(const struct gradientd_options *options, struct client_hparams *ret_hparams,
                            Gradientd__OpenRun *open_run) {
    size_t count = options->n_hparams;
    open_run->hparams_group = options->hparams_group ? borrow(options->hparams_group) : NULL;
    if (count == 0)
        return 0;
    ret_hparams->hparams = calloc(count, sizeof(*ret_hparams->hparams));
    ret_hparams->pointers = calloc(count, sizeof(*ret_hparams->pointers));
    if (!ret_hparams->hparams || !ret_hparams->pointers)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        describe(&options->hparams[i], &ret_hparams->hparams[i]);
        ret_hparams->pointers[i] = &ret_hparams->hparams[i];
    }
    open_run->n_hparams = count;
    open_run->hparams = ret_hparams->pointers;
    return 0;
}

void client_free_hparams(struct client_hparams *hparams) {
    free(hparams->hparams);
    free(hparams->pointers);
}
