#include "decode_hparams.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gradientd/protocol.h"
#include "text.h"

static int check_text(size_t index, const char *text, struct gd_error *ret_error) {
    size_t bytes = strlen(text);
    if (bytes <= GRADIENTD_HPARAM_TEXT_BYTES_MAX && gd_text_is_clean(text, bytes))
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams.text",
                        "hparams[%zu].text has %zu bytes; it must be at most %d bytes of UTF-8 without control "
                        "characters",
                        index, bytes, GRADIENTD_HPARAM_TEXT_BYTES_MAX);
}

static int check_value(size_t index, const Gradientd__HParam *hparam, struct gd_error *ret_error) {
    switch (hparam->value_case) {
    case GRADIENTD__HPARAM__VALUE_NUMBER:
        if (isfinite(hparam->number))
            return 0;
        return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams.number",
                            "hparams[%zu].number is %f, it must be finite", index, hparam->number);
    case GRADIENTD__HPARAM__VALUE_TEXT:
        return check_text(index, hparam->text, ret_error);
    case GRADIENTD__HPARAM__VALUE_FLAG:
        return 0;
    default:
        return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams.value",
                            "hparams[%zu] has no value; it must be one of number, text and flag", index);
    }
}

static int check_hparam(size_t index, Gradientd__HParam *const *hparams, struct gd_error *ret_error) {
    const char *name = hparams[index]->name;
    if (!gd_text_is_name(name))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams.name",
                            "hparams[%zu].name has %zu bytes; it must be 1 to %d bytes of UTF-8 without control "
                            "characters",
                            index, strlen(name), GRADIENTD_NAME_BYTES_MAX);
    for (size_t i = 0; i < index; i++)
        if (strcmp(hparams[i]->name, name) == 0)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams.name",
                                "hparams[%zu].name is that of hparams[%zu], %s; each must be there once", index, i,
                                name);
    return check_value(index, hparams[index], ret_error);
}

static int check(const Gradientd__OpenRun *message, struct gd_error *ret_error) {
    if (message->n_hparams > GRADIENTD_HPARAMS_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams", "hparams has %zu entries, the limit is %d",
                            message->n_hparams, GRADIENTD_HPARAMS_MAX);
    for (size_t i = 0; i < message->n_hparams; i++) {
        int result = check_hparam(i, message->hparams, ret_error);
        if (result < 0)
            return result;
    }
    if (message->hparams_group && !gd_text_is_name(message->hparams_group))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "hparams_group",
                            "hparams_group has %zu bytes; it must be 1 to %d bytes of UTF-8 without control "
                            "characters",
                            strlen(message->hparams_group), GRADIENTD_NAME_BYTES_MAX);
    return 0;
}

static size_t text_bytes(const Gradientd__HParam *hparam) {
    return hparam->value_case == GRADIENTD__HPARAM__VALUE_TEXT ? strlen(hparam->text) + 1 : 0;
}

static const char *keep(char **end, const char *text) {
    size_t bytes = strlen(text) + 1;
    char *kept = memcpy(*end, text, bytes);
    *end += bytes;
    return kept;
}

static void copy_hparam(const Gradientd__HParam *hparam, char **end, struct gd_hparam *ret_hparam) {
    ret_hparam->name = keep(end, hparam->name);
    if (hparam->value_case == GRADIENTD__HPARAM__VALUE_TEXT) {
        ret_hparam->kind = GD_HPARAM_TEXT;
        ret_hparam->text = keep(end, hparam->text);
    } else if (hparam->value_case == GRADIENTD__HPARAM__VALUE_FLAG) {
        ret_hparam->kind = GD_HPARAM_FLAG;
        ret_hparam->flag = hparam->flag;
    } else {
        ret_hparam->kind = GD_HPARAM_NUMBER;
        ret_hparam->number = hparam->number;
    }
}

int gd_decode_hparams(const Gradientd__OpenRun *message, struct gd_hparams *ret_hparams, struct gd_error *ret_error) {
    int result = check(message, ret_error);
    if (result < 0 || (message->n_hparams == 0 && !message->hparams_group))
        return result;

    size_t bytes = message->n_hparams * sizeof(*ret_hparams->hparam);
    for (size_t i = 0; i < message->n_hparams; i++)
        bytes += strlen(message->hparams[i]->name) + 1 + text_bytes(message->hparams[i]);
    bytes += message->hparams_group ? strlen(message->hparams_group) + 1 : 0;

    struct gd_hparam *hparam = calloc(1, bytes);
    if (!hparam)
        return -ENOMEM;
    char *end = (char *)(hparam + message->n_hparams);
    for (size_t i = 0; i < message->n_hparams; i++)
        copy_hparam(message->hparams[i], &end, &hparam[i]);
    *ret_hparams = (struct gd_hparams){
        .hparam = hparam,
        .n_hparams = (uint32_t)message->n_hparams,
        .block_bytes = (uint32_t)bytes, // less than a message has, and 40 for each of its entries
        .group = message->hparams_group ? keep(&end, message->hparams_group) : NULL,
    };
    return 0;
}
