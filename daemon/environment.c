#include "environment.h"

#include <stdlib.h>

const char *gd_environment_directory(const char *variable) {
    const char *value = getenv(variable);
    return value && *value == '/' ? value : NULL;
}
