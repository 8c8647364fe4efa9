// Whether the daemon, gradientctl and the client library that programs load are of one version.
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkup.h"

static const char LIBRARY[] = "libgradientd.so.0";

// Where a program would load the library from: the file's path, links followed, in the caller's buffer; or false.
static bool find_library(char ret_path[static PATH_MAX]) {
    void *library = dlopen(LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    const struct link_map *map = NULL;
    if (!library)
        return false;
    bool found = dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && realpath(map->l_name, ret_path);
    dlclose(library);
    return found;
}

// The file is named libgradientd.so.VERSION.
static void check_library(struct gd_checkup *checkup) {
    char path[PATH_MAX];
    if (!find_library(path)) {
        gd_checkup_add(checkup, "library", GD_VERDICT_OK, NULL,
                       "no %s is installed here: trainings through the Python package need none", LIBRARY);
        return;
    }
    const char *suffix = strstr(path, ".so.");
    const char *version = suffix ? suffix + strlen(".so.") : "";
    bool other = strcmp(version, GD_VERSION) != 0;
    gd_checkup_add(checkup, "library", other ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   other ? "install one version of all, then ldconfig: an old library may lie in /usr/local/lib" : NULL,
                   "%s is of version %s%s", path, version, other ? ", gradientctl of " GD_VERSION : "");
}

void gd_doctor_check_versions(struct gd_checkup *checkup) {
    if (checkup->watch) {
        const char *version = checkup->watch->daemon->version;
        bool other = strcmp(version, GD_VERSION) != 0;
        gd_checkup_add(checkup, "version", other ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                       other ? "restart the daemon after an upgrade (systemctl restart gradientd): its runs go on"
                             : NULL,
                       "the daemon is of version %s, gradientctl of %s", version, GD_VERSION);
    } else {
        gd_checkup_add(checkup, "version", GD_VERDICT_OK, NULL, "gradientctl is of version %s", GD_VERSION);
    }
    check_library(checkup);
}
