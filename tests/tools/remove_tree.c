#include "remove_tree.h"

#include <ftw.h>
#include <stdio.h>

enum { WALK_FDS = 16 };

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

int remove_tree(const char *path) {
    return nftw(path, remove_entry, WALK_FDS, FTW_DEPTH | FTW_PHYS);
}
