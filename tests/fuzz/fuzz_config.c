// A file of the configuration. The machine's users and groups are three of each, which are found at once. The seeds are
// written by hand.
#include <assert.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "config_file.h"
#include "fuzz.h"
#include "text.h"

static const char PATH[] = "/the/file";
static const char *const names[] = {"root", "daemon", "a"};

struct passwd *__wrap_getpwnam(const char *name);
struct group *__wrap_getgrnam(const char *name);

struct passwd *__wrap_getpwnam(const char *name) {
    static struct passwd user;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0) {
            user.pw_uid = (uid_t)i;
            return &user;
        }
    return NULL;
}

struct group *__wrap_getgrnam(const char *name) {
    static struct group group;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0) {
            group.gr_gid = (gid_t)i;
            return &group;
        }
    return NULL;
}

struct said {
    size_t bytes; // of the file
    unsigned line;
};

// Errors come in the order of the lines, and are text.
static void check_error(void *context, const char *path, unsigned line, const char *text) {
    struct said *said = context;
    assert(path == PATH && *text && gd_text_is_clean(text, strlen(text)));
    assert(line == 0 || (line >= said->line && line <= said->bytes + 1));
    said->line = line;
}

// What was taken is what could have been given.
static void check_options(const struct gd_config *config, size_t bytes) {
    const struct gd_server_options *options = &config->options;
    assert(options->workers >= 1 && options->socket_rights.mode >= -1 && options->socket_rights.mode <= 0777);
    assert(options->admission.users.n_ids <= GD_ADMITTED_MAX && options->admission.groups.n_ids <= GD_ADMITTED_MAX);
    assert(options->quota.messages_per_second >= 1 && options->metrics_interval_s >= 1);
    assert(!options->socket_path || *options->socket_path == '/');
    assert(!options->state_directory || *options->state_directory == '/');
    for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++)
        assert(config->sources[id].line <= bytes &&
               (config->sources[id].line == 0 || config->sources[id].path == PATH));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct said said = {bytes, 0};
    struct gd_config_report report = {.say = check_error, .context = &said};
    struct gd_config config = {.options = gd_settings_default()};

    int result = gd_config_file_parse(PATH, (const char *)data, bytes, &config, &report);
    assert(result == 0);
    check_options(&config, bytes);
    gd_config_deinit(&config);
    return 0;
}
