// Runs a fuzz target over every file of the directories it is given: the corpus as an ordinary test, with any compiler.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

// Runs one file. Each gets a heap block of its exact size, so that a sanitizer sees a read past its end.
static int replay_file(int directory, const char *name) {
    struct stat status;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    size_t bytes = (size_t)status.st_size;
    uint8_t *data = malloc(bytes ? bytes : 1);
    if (!data || read(fd, data, bytes) != (ssize_t)bytes) {
        free(data);
        close(fd);
        return -EIO;
    }
    close(fd);
    LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    return 0;
}

// Returns how many files it ran, or a negative errno.
static int replay_directory(const char *path) {
    int n_files = 0;
    DIR *entries = opendir(path);
    if (!entries)
        return -errno;
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (entry->d_name[0] == '.')
            continue;
        int result = replay_file(dirfd(entries), entry->d_name);
        if (result < 0) {
            fprintf(stderr, "%s/%s: %s\n", path, entry->d_name, strerror(-result));
            n_files = result;
            break;
        }
        n_files++;
    }
    closedir(entries);
    return n_files;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        int n_files = replay_directory(argv[i]);
        if (n_files <= 0) {
            fprintf(stderr, "%s: %s\n", argv[i], n_files < 0 ? strerror(-n_files) : "no files");
            return EXIT_FAILURE;
        }
        printf("%s: %d files\n", argv[i], n_files);
    }
    return argc > 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
