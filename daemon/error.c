#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "text.h"

const char *gd_error_code_name(enum gd_error_code code) {
    static const char *const names[GD_ERROR_CODES] = {
        [GD_ERROR_PROTOCOL] = "protocol", [GD_ERROR_INVALID] = "invalid",     [GD_ERROR_UNSUPPORTED] = "unsupported",
        [GD_ERROR_QUOTA] = "quota",       [GD_ERROR_OWNED] = "owned",         [GD_ERROR_MEMORY] = "memory",
        [GD_ERROR_INTERNAL] = "internal", [GD_ERROR_FORBIDDEN] = "forbidden",
    };
    return names[code];
}

int gd_error_set(struct gd_error *ret_error, enum gd_error_code code, const char *field, const char *format, ...) {
    va_list arguments;

    ret_error->code = code;
    ret_error->field = field;
    va_start(arguments, format);
    int bytes = vsnprintf(ret_error->text, sizeof(ret_error->text), format, arguments);
    va_end(arguments);
    if (bytes >= (int)sizeof(ret_error->text)) // it may end inside a character
        ret_error->text[gd_text_clean_bytes(ret_error->text, sizeof(ret_error->text) - 1)] = '\0';
    return -EBADMSG;
}

int gd_error_check_range(const char *field, uint64_t value, uint64_t least, uint64_t most, struct gd_error *ret_error) {
    if (value >= least && value <= most)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %llu, the limits are %llu and %llu", field,
                        (unsigned long long)value, (unsigned long long)least, (unsigned long long)most);
}
