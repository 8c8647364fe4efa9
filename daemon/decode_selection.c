#include "decode_selection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gradientd/protocol.h"
#include "text.h"

static int read_patterns(const char *field, char *const *patterns, size_t n_patterns, struct gd_patterns *ret_patterns,
                         struct gd_error *ret_error) {
    if (n_patterns == 0)
        return 0;
    if (n_patterns > GRADIENTD_PATTERNS_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s has %zu entries, the limit is %d", field,
                            n_patterns, GRADIENTD_PATTERNS_MAX);
    ret_patterns->pattern = calloc(n_patterns, sizeof(*ret_patterns->pattern));
    if (!ret_patterns->pattern)
        return -ENOMEM;
    for (size_t i = 0; i < n_patterns; i++) {
        if (!gd_text_is_name(patterns[i]))
            return gd_error_set(ret_error, GD_ERROR_INVALID, field,
                                "%s[%zu] has %zu bytes; it must be 1 to %d bytes of UTF-8 without control characters",
                                field, i, strlen(patterns[i]), GRADIENTD_NAME_BYTES_MAX);
        char *copy = strndup(patterns[i], GRADIENTD_NAME_BYTES_MAX);
        if (!copy)
            return -ENOMEM;
        ret_patterns->pattern[ret_patterns->n_patterns++] = copy;
    }
    return 0;
}

int gd_decode_selection(const Gradientd__OpenRun *message, struct gd_group_selection *ret_selection,
                        struct gd_error *ret_error) {
    if (message->has_per_group)
        ret_selection->per_group = message->per_group ? GD_PER_GROUP_ALWAYS : GD_PER_GROUP_NEVER;
    int result = read_patterns("include", message->include, message->n_include, &ret_selection->include, ret_error);
    if (result == 0)
        result = read_patterns("exclude", message->exclude, message->n_exclude, &ret_selection->exclude, ret_error);
    if (result < 0 || !message->has_fold_depth)
        return result;
    ret_selection->fold_depth = message->fold_depth;
    return gd_error_check_range("fold_depth", message->fold_depth, 1, GRADIENTD_FOLD_DEPTH_MAX, ret_error);
}
