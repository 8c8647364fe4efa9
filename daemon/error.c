#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int gd_error_set(struct gd_error *ret_error, enum gd_error_code code, const char *field, const char *format, ...) {
    va_list arguments;

    ret_error->code = code;
    ret_error->field = field;
    va_start(arguments, format);
    vsnprintf(ret_error->text, sizeof(ret_error->text), format, arguments);
    va_end(arguments);
    return -EBADMSG;
}
