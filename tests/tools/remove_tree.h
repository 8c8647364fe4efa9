// Removes a directory with all that is in it.
#pragma once

// Symbolic links are removed, not followed. Returns 0, or -1 with errno of what could not be removed.
int remove_tree(const char *path);
