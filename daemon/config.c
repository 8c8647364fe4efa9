#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_file.h"
#include "environment.h"

enum { ERROR_TEXT_BYTES = 512 }; // a whole line of a file, and what is wrong with it

static const char DROP_IN_SUFFIX[] = ".conf";

void gd_config_say(struct gd_config_report *report, const char *path, unsigned line, const char *format, ...) {
    char text[ERROR_TEXT_BYTES];
    va_list arguments;

    report->n_errors++;
    if (report->n_errors > GD_CONFIG_ERRORS_MAX + 1)
        return;
    if (report->n_errors > GD_CONFIG_ERRORS_MAX)
        line = 0, format = "and more errors";
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    report->say(report->context, path, line, text);
}

// ---- which files

// A user's directory. Whoever runs the daemon may have another one's $HOME: what cannot be entered counts as not set,
// too.
static const char *get_own_directory(const char *variable) {
    const char *value = gd_environment_directory(variable);
    return value && (euidaccess(value, X_OK) == 0 || errno != EACCES) ? value : NULL;
}

// Where the configuration is unless the command line says so. Returns 0 and *ret_path, the caller's, NULL where there
// is no place for one; or -ENOMEM.
static int default_path(char **ret_path) {
    const char *given = gd_environment_directory("CONFIGURATION_DIRECTORY");
    const char *config = get_own_directory("XDG_CONFIG_HOME"), *home = get_own_directory("HOME");
    int length = 0;

    *ret_path = NULL;
    if (given)
        length = asprintf(ret_path, "%.*s/gradientd.conf", (int)strcspn(given, ":"), given);
    else if (geteuid() == 0)
        length = asprintf(ret_path, "%s/gradientd/gradientd.conf", GD_SYSCONFDIR);
    else if (config)
        length = asprintf(ret_path, "%s/gradientd/gradientd.conf", config);
    else if (home)
        length = asprintf(ret_path, "%s/.config/gradientd/gradientd.conf", home);
    if (length >= 0)
        return 0;
    *ret_path = NULL; // undefined after a failure
    return -ENOMEM;
}

// Reads one file whose path becomes the configuration's.
static int read_file_consume(struct gd_config *config, char *path, bool is_optional, struct gd_config_report *report) {
    if (config->n_paths == GD_CONFIG_FILES_MAX) {
        gd_config_say(report, path, 0, "there are more than %d files", GD_CONFIG_FILES_MAX);
        free(path);
        return 0;
    }
    int result = gd_config_file_read(path, is_optional, config, report);
    if (result == 0)
        free(path);
    else
        config->paths[config->n_paths++] = path; // errors and sources name it
    return result < 0 ? result : 0;
}

static int is_drop_in(const struct dirent *entry) {
    size_t bytes = strlen(entry->d_name), suffix_bytes = sizeof(DROP_IN_SUFFIX) - 1;
    return *entry->d_name != '.' && bytes > suffix_bytes &&
           strcmp(entry->d_name + bytes - suffix_bytes, DROP_IN_SUFFIX) == 0;
}

// In the order of their bytes, whatever the locale.
static int compare_names(const struct dirent **entry, const struct dirent **other) {
    return strcmp((*entry)->d_name, (*other)->d_name);
}

static int read_directory(struct gd_config *config, const char *directory, struct gd_config_report *report) {
    struct dirent **entries;
    int result = 0, n_entries = scandir(directory, &entries, is_drop_in, compare_names);
    if (n_entries < 0 && errno == ENOMEM)
        return -ENOMEM;
    if (n_entries < 0 && errno != ENOENT && errno != ENOTDIR)
        gd_config_say(report, directory, 0, "cannot be read: %s", strerror(errno));
    if (n_entries < 0)
        return 0;
    for (int i = 0; i < n_entries; i++) {
        char *path = NULL;
        if (result == 0 && asprintf(&path, "%s/%s", directory, entries[i]->d_name) < 0)
            result = -ENOMEM;
        if (result == 0)
            result = read_file_consume(config, path, true, report);
        free(entries[i]);
    }
    free(entries);
    return result;
}

// The file, and those of its directory beside it.
static int read_files(struct gd_config *config, const struct gd_command_line *command_line,
                      struct gd_config_report *report) {
    char *path, *directory;
    if (command_line->options.connection_fd >= 0)
        return 0;
    int result = 0;
    if (!command_line->config_path)
        result = default_path(&path);
    else if (!(path = strdup(command_line->config_path)))
        result = -ENOMEM;
    if (result < 0 || !path)
        return result;
    if (asprintf(&directory, "%s.d", path) < 0) {
        free(path);
        return -ENOMEM;
    }
    result = read_file_consume(config, path, !command_line->config_path, report);
    if (result == 0)
        result = read_directory(config, directory, report);
    free(directory);
    return result;
}

// ---- the whole

static void take_command_line(struct gd_config *config, const struct gd_command_line *command_line) {
    config->options.connection_fd = command_line->options.connection_fd;
    config->options.command_line = command_line->options.connection_fd < 0 ? command_line : NULL;
    for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++) {
        if (!command_line->given[id])
            continue;
        gd_setting_copy(id, &config->options, &command_line->options);
        config->from_command_line[id] = true;
    }
}

int gd_config_read(struct gd_config *config, const struct gd_command_line *command_line,
                   struct gd_config_report *report) {
    *config = (struct gd_config){.options = gd_settings_default()};
    report->n_errors = 0;
    int result = read_files(config, command_line, report);
    take_command_line(config, command_line);
    return result == 0 && report->n_errors > 0 ? -EBADMSG : result;
}

void gd_config_deinit(struct gd_config *config) {
    for (size_t i = 0; i < GD_SETTINGS; i++)
        free(config->strings[i]);
    for (uint32_t i = 0; i < config->n_paths; i++)
        free(config->paths[i]);
    *config = (struct gd_config){0};
}

static void print_source(const struct gd_config *config, enum gd_setting_id id, FILE *stream) {
    const struct gd_config_source *source = &config->sources[id];
    if (config->from_command_line[id])
        fputs("command line\n", stream);
    else if (source->path)
        fprintf(stream, "%s:%u\n", source->path, source->line);
    else
        fputs("default\n", stream);
}

void gd_config_print(const struct gd_config *config, FILE *stream) {
    const char *section = "";
    for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++) {
        char text[GD_SETTING_TEXT_BYTES];
        if (strcmp(section, gd_settings[id].section) != 0)
            fprintf(stream, "%s[%s]\n", *section ? "\n" : "", gd_settings[id].section);
        section = gd_settings[id].section;
        gd_setting_print(id, &config->options, text);
        fprintf(stream, "%-22s  %-24s  ", gd_settings[id].key, text);
        print_source(config, id, stream);
    }
    fprintf(stream, "\nfiles read: %s\n", config->n_paths ? "" : "none");
    for (uint32_t i = 0; i < config->n_paths; i++)
        fprintf(stream, "%s\n", config->paths[i]);
}
