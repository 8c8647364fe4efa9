// What can be set: one table for the command line, where a setting is an option, and for the configuration's files,
// where it is a key of the same name in a section.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "server.h"

enum gd_setting_id {
    GD_SETTING_WORKERS,
    GD_SETTING_STATE_DIRECTORY,
    GD_SETTING_LOG_LEVEL,
    GD_SETTING_SOCKET,
    GD_SETTING_SOCKET_MODE,
    GD_SETTING_SOCKET_GROUP,
    GD_SETTING_ALLOW_USERS,
    GD_SETTING_ALLOW_GROUPS,
    GD_SETTING_ADMIN_GROUP,
    GD_SETTING_CONNECTIONS,
    GD_SETTING_RUNS,
    GD_SETTING_FDS,
    GD_SETTING_MEMORY,
    GD_SETTING_MESSAGES,
    GD_SETTING_ATTACH_TIMEOUT,
    GD_SETTING_METRICS_FILE,
    GD_SETTING_METRICS_INTERVAL,
    GD_SETTINGS,
};

enum { GD_SETTING_TEXT_BYTES = 8192 }; // a whole list of users

struct gd_setting_kind;

struct gd_setting {
    const char *section, *key;
    const struct gd_setting_kind *kind;
    size_t offset;          // of its field in struct gd_server_options
    uint64_t least, most;   // of a number; of a path, its bytes
    const char *unset_text; // what is in force where it is not set, for those that have no value then
    bool live;              // a reload applies it; it is no string then
};

extern const struct gd_setting gd_settings[GD_SETTINGS];

// The default of every setting. Everything that is no setting is as it is for a daemon that listens.
struct gd_server_options gd_settings_default(void);

// Sets `id` in *options to what `text` says; for lists, adds that. `name` is what the setting is called in *ret_error.
// A path is borrowed from `text`. Returns 0 or -EBADMSG with *ret_error set: its text names the setting, the value and
// what is allowed. Looks users and groups up, which may block, and belongs to one thread at a time.
__attribute__((warn_unused_result)) int gd_setting_parse(enum gd_setting_id id, const char *name, const char *text,
                                                         struct gd_server_options *options, struct gd_error *ret_error);

// Gives `id` the value that it has in `from`; a path stays borrowed from whom `from` has it.
void gd_setting_copy(enum gd_setting_id id, struct gd_server_options *options, const struct gd_server_options *from);

bool gd_setting_is_same(enum gd_setting_id id, const struct gd_server_options *options,
                        const struct gd_server_options *other);

bool gd_setting_is_path(enum gd_setting_id id);

// A list, which may go on in a file's next line.
bool gd_setting_is_list(enum gd_setting_id id);

// What is in force, for a person. Looks users and groups up.
void gd_setting_print(enum gd_setting_id id, const struct gd_server_options *options,
                      char ret_text[static GD_SETTING_TEXT_BYTES]);

// The setting that is an option or key of this name; GD_SETTINGS: none.
enum gd_setting_id gd_setting_find(const char *key);
