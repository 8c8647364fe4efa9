#include "settings.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "gradientd/protocol.h"
#include "log.h"
#include "session.h"

enum {
    PER_USER_MAX = 1 << 20, // of connections, runs and descriptors: more than a process can have

    // What a user gets unless something else is set. Connections, runs and descriptors: a machine's whole share of a
    // parallel job, several times over. A quarter of the memory: the job and others need the rest. Messages: several
    // times what the loop was measured to take of a single trainer.
    CONNECTIONS_DEFAULT = 64,
    RUNS_DEFAULT = 64,
    FDS_DEFAULT = 256,
    MEMORY_PERCENT_DEFAULT = 25,
    MESSAGES_DEFAULT = 1000000,

    MS_PER_SECOND = 1000,
    ATTACH_TIMEOUT_SECONDS_MAX = 86400,
    // Between Hello and Attach a trainer makes its memory: 0.3 s a gigabyte, for a terabyte.
    ATTACH_TIMEOUT_SECONDS_DEFAULT = 300,

    METRICS_INTERVAL_SECONDS_MAX = 3600,
    METRICS_INTERVAL_SECONDS_DEFAULT = 15, // how often node_exporter's file is read by default
};

#define MEMORY_MIN (UINT64_C(1) << 20) // bytes; the smallest run takes more
#define MEMORY_MAX (UINT64_C(1) << 50) // no machine has more

// How values of one type are read and shown. `name` is the setting's in errors.
struct gd_setting_kind {
    size_t bytes; // of its field
    int (*parse)(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                 struct gd_error *ret_error);
    bool (*print)(const void *value, char *ret_text, size_t size); // false: nothing is set
};

// Of the cores that this process may use: a private daemon has those of its job.
static uint32_t default_workers(void) {
    unsigned workers = uv_available_parallelism() / 2;
    if (workers < 1)
        return 1;
    return workers < GD_WORKERS_MAX ? workers : GD_WORKERS_MAX;
}

static uint64_t physical_memory_bytes(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

// ---- numbers

// The decimal number that `text` begins with; *ret_end is `text` where there is none or it does not fit.
static uint64_t read_number(const char *text, const char **ret_end) {
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    bool taken = *text >= '0' && *text <= '9' && errno == 0; // strtoull also takes spaces and signs
    *ret_end = taken ? end : text;
    return number;
}

static int parse_u64(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                     struct gd_error *ret_error) {
    const char *end;
    uint64_t number = read_number(text, &end);
    if (end == text || *end || number < setting->least || number > setting->most)
        return gd_error_set(ret_error, GD_ERROR_INVALID, setting->key, "%s is %s, the limits are %llu and %llu", name,
                            text, (unsigned long long)setting->least, (unsigned long long)setting->most);
    *(uint64_t *)ret_value = number;
    return 0;
}

static int parse_u32(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                     struct gd_error *ret_error) {
    uint64_t number = 0;
    int result = parse_u64(setting, name, text, &number, ret_error);
    if (result == 0)
        *(uint32_t *)ret_value = (uint32_t)number;
    return result;
}

static int parse_seconds(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                         struct gd_error *ret_error) {
    uint32_t seconds = 0;
    int result = parse_u32(setting, name, text, &seconds, ret_error);
    if (result == 0)
        *(uint32_t *)ret_value = seconds * MS_PER_SECOND;
    return result;
}

static bool print_u64(const void *value, char *ret_text, size_t size) {
    snprintf(ret_text, size, "%llu", (unsigned long long)*(const uint64_t *)value);
    return true;
}

static bool print_u32(const void *value, char *ret_text, size_t size) {
    snprintf(ret_text, size, "%u", *(const uint32_t *)value);
    return true;
}

static bool print_seconds(const void *value, char *ret_text, size_t size) {
    snprintf(ret_text, size, "%u", *(const uint32_t *)value / MS_PER_SECOND);
    return true;
}

// The factor of a suffix, 0: unknown. A hundredth of the memory is its own factor, rounded down.
static uint64_t unit_bytes(const char *suffix) {
    static const char letters[] = "KMGT";
    if (!*suffix)
        return 1;
    if (suffix[1])
        return 0;
    if (*suffix == '%')
        return physical_memory_bytes() / 100;
    const char *letter = strchr(letters, *suffix);
    return letter ? UINT64_C(1) << (10 * (letter - letters + 1)) : 0;
}

static int parse_memory(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                        struct gd_error *ret_error) {
    const char *end;
    uint64_t number = read_number(text, &end);
    uint64_t unit = end == text ? 0 : unit_bytes(end);
    bool percents = unit > 0 && *end == '%';
    if (unit == 0 || number > setting->most / unit || number * unit < setting->least || (percents && number > 100))
        return gd_error_set(ret_error, GD_ERROR_INVALID, setting->key, "%s is %s, the limits are 1M and %s", name, text,
                            percents ? "100%" : "1024T; K, M, G, T and % are known");
    *(uint64_t *)ret_value = number * unit;
    return 0;
}

// Rights as chmod takes them, without the bits that a socket has no use for.
static int parse_mode(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                      struct gd_error *ret_error) {
    char *end;
    unsigned long mode = strtoul(text, &end, 8);
    if (*text < '0' || *text > '7' || *end || mode > setting->most)
        return gd_error_set(ret_error, GD_ERROR_INVALID, setting->key, "%s is %s, it must be octal, at most 0777", name,
                            text);
    *(int *)ret_value = (int)mode;
    return 0;
}

static bool print_mode(const void *value, char *ret_text, size_t size) {
    int mode = *(const int *)value;
    snprintf(ret_text, size, "%04o", (unsigned)mode);
    return mode >= 0;
}

// ---- words

static const struct {
    const char *name;
    enum gd_log_level level;
} log_levels[] = {{"error", GD_LOG_ERROR}, {"warning", GD_LOG_WARNING}, {"info", GD_LOG_INFO}};

static int parse_log_level(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                           struct gd_error *ret_error) {
    for (size_t i = 0; i < sizeof(log_levels) / sizeof(log_levels[0]); i++)
        if (strcmp(text, log_levels[i].name) == 0) {
            *(enum gd_log_level *)ret_value = log_levels[i].level;
            return 0;
        }
    return gd_error_set(ret_error, GD_ERROR_INVALID, setting->key, "%s is %s, it must be error, warning or info", name,
                        text);
}

static bool print_log_level(const void *value, char *ret_text, size_t size) {
    for (size_t i = 0; i < sizeof(log_levels) / sizeof(log_levels[0]); i++)
        if (*(const enum gd_log_level *)value == log_levels[i].level)
            snprintf(ret_text, size, "%s", log_levels[i].name);
    return true;
}

static int parse_path(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                      struct gd_error *ret_error) {
    size_t bytes = strlen(text);
    if (bytes < setting->least || bytes > setting->most)
        return gd_error_set(ret_error, GD_ERROR_INVALID, setting->key,
                            "%s is a path of %zu bytes, the limits are %llu and %llu", name, bytes,
                            (unsigned long long)setting->least, (unsigned long long)setting->most);
    *(const char **)ret_value = text;
    return 0;
}

static bool print_path(const void *value, char *ret_text, size_t size) {
    const char *path = *(const char *const *)value;
    snprintf(ret_text, size, "%s", path ? path : "");
    return path != NULL;
}

// ---- users and groups

static int parse_group(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                       struct gd_error *ret_error) {
    return gd_admission_find_group(setting->key, name, text, ret_value, ret_error);
}

static int parse_users(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                       struct gd_error *ret_error) {
    return gd_admission_add_users(ret_value, setting->key, name, text, ret_error);
}

static int parse_groups(const struct gd_setting *setting, const char *name, const char *text, void *ret_value,
                        struct gd_error *ret_error) {
    return gd_admission_add_groups(ret_value, setting->key, name, text, ret_error);
}

// The name of a user or group, its number where it has none.
static size_t print_id(const char *name, uint32_t id, char *ret_text, size_t size) {
    int bytes = name ? snprintf(ret_text, size, "%s", name) : snprintf(ret_text, size, "%u", id);
    return (size_t)bytes < size ? (size_t)bytes : size - 1;
}

static size_t print_user_id(uint32_t id, char *ret_text, size_t size) {
    const struct passwd *user = getpwuid(id);
    return print_id(user ? user->pw_name : NULL, id, ret_text, size);
}

static size_t print_group_id(uint32_t id, char *ret_text, size_t size) {
    const struct group *group = getgrgid(id);
    return print_id(group ? group->gr_name : NULL, id, ret_text, size);
}

static bool print_list(const struct gd_admission_list *list, size_t (*print)(uint32_t id, char *ret_text, size_t size),
                       char *ret_text, size_t size) {
    size_t used = 0;
    ret_text[0] = '\0';
    for (uint32_t i = 0; i < list->n_ids && used + 1 < size; i++) {
        if (i > 0)
            ret_text[used++] = ',';
        used += print(list->ids[i], ret_text + used, size - used);
    }
    return list->given;
}

static bool print_users(const void *value, char *ret_text, size_t size) {
    return print_list(value, print_user_id, ret_text, size);
}

static bool print_groups(const void *value, char *ret_text, size_t size) {
    return print_list(value, print_group_id, ret_text, size);
}

static bool print_group(const void *value, char *ret_text, size_t size) {
    gid_t group = *(const gid_t *)value;
    if (group == (gid_t)-1)
        return false;
    print_group_id(group, ret_text, size);
    return true;
}

// ---- the table

static const struct gd_setting_kind u64 = {sizeof(uint64_t), parse_u64, print_u64},
                                    u32 = {sizeof(uint32_t), parse_u32, print_u32},
                                    seconds_in_ms = {sizeof(uint32_t), parse_seconds, print_seconds},
                                    memory = {sizeof(uint64_t), parse_memory, print_u64},
                                    mode = {sizeof(int), parse_mode, print_mode},
                                    log_level = {sizeof(enum gd_log_level), parse_log_level, print_log_level},
                                    path = {sizeof(const char *), parse_path, print_path},
                                    one_group = {sizeof(gid_t), parse_group, print_group},
                                    users = {sizeof(struct gd_admission_list), parse_users, print_users},
                                    groups = {sizeof(struct gd_admission_list), parse_groups, print_groups};

#define FIELD(name) offsetof(struct gd_server_options, name)

static const char everybody[] = "everybody, unless the other list is set", found[] = "found at start, see gradientd(8)";

const struct gd_setting gd_settings[GD_SETTINGS] = {
    [GD_SETTING_WORKERS] = {"daemon", "workers", &u32, FIELD(workers), 1, GD_WORKERS_MAX, NULL, false},
    [GD_SETTING_STATE_DIRECTORY] = {"daemon", "state-directory", &path, FIELD(state_directory), 1, PATH_MAX - 1, found,
                                    false},
    [GD_SETTING_LOG_LEVEL] = {"daemon", "log-level", &log_level, FIELD(log_level), 0, 0, NULL, true},
    // how long a socket's path may be is the listener's to say
    [GD_SETTING_SOCKET] = {"socket", "socket", &path, FIELD(socket_path), 1, PATH_MAX - 1, found, false},
    [GD_SETTING_SOCKET_MODE] = {"socket", "socket-mode", &mode, FIELD(socket_rights.mode), 0, 0777,
                                "what the umask leaves, or 0660 with socket-group", false},
    [GD_SETTING_SOCKET_GROUP] = {"socket", "socket-group", &one_group, FIELD(socket_rights.group), 0, 0,
                                 "the daemon's group", false},
    [GD_SETTING_ALLOW_USERS] = {"access", "allow-users", &users, FIELD(admission.users), 0, 0, everybody, true},
    [GD_SETTING_ALLOW_GROUPS] = {"access", "allow-groups", &groups, FIELD(admission.groups), 0, 0, everybody, true},
    [GD_SETTING_ADMIN_GROUP] = {"access", "admin-group", &one_group, FIELD(admin_group), 0, 0, "none", true},
    [GD_SETTING_CONNECTIONS] = {"limits", "connections-per-user", &u64, FIELD(quota.most[GD_QUOTA_CONNECTIONS]), 1,
                                PER_USER_MAX, NULL, true},
    [GD_SETTING_RUNS] = {"limits", "runs-per-user", &u64, FIELD(quota.most[GD_QUOTA_RUNS]), 1, PER_USER_MAX, NULL,
                         true},
    [GD_SETTING_FDS] = {"limits", "fds-per-user", &u64, FIELD(quota.most[GD_QUOTA_FDS]), GRADIENTD_FDS_MAX,
                        PER_USER_MAX, NULL, true},
    [GD_SETTING_MEMORY] = {"limits", "memory-per-user", &memory, FIELD(quota.most[GD_QUOTA_MEMORY]), MEMORY_MIN,
                           MEMORY_MAX, NULL, true},
    [GD_SETTING_MESSAGES] = {"limits", "messages-per-second", &u32, FIELD(quota.messages_per_second), 1,
                             GD_QUOTA_MESSAGES_MAX, NULL, true},
    [GD_SETTING_ATTACH_TIMEOUT] = {"limits", "attach-timeout", &seconds_in_ms, FIELD(attach_timeout_ms), 1,
                                   ATTACH_TIMEOUT_SECONDS_MAX, NULL, true},
    [GD_SETTING_METRICS_FILE] = {"metrics", "metrics-file", &path, FIELD(metrics_file), 1, PATH_MAX - 1, "none", false},
    [GD_SETTING_METRICS_INTERVAL] = {"metrics", "metrics-interval", &u32, FIELD(metrics_interval_s), 1,
                                     METRICS_INTERVAL_SECONDS_MAX, NULL, true},
};

struct gd_server_options gd_settings_default(void) {
    return (struct gd_server_options){
        .socket_rights = {.mode = -1, .group = (gid_t)-1},
        .admin_group = (gid_t)-1,
        .attach_timeout_ms = ATTACH_TIMEOUT_SECONDS_DEFAULT * MS_PER_SECOND,
        .connection_fd = -1,
        .workers = default_workers(),
        .log_level = GD_LOG_INFO,
        .metrics_interval_s = METRICS_INTERVAL_SECONDS_DEFAULT,
        .quota =
            {
                .most = {[GD_QUOTA_CONNECTIONS] = CONNECTIONS_DEFAULT,
                         [GD_QUOTA_RUNS] = RUNS_DEFAULT,
                         [GD_QUOTA_FDS] = FDS_DEFAULT,
                         [GD_QUOTA_MEMORY] = physical_memory_bytes() / 100 * MEMORY_PERCENT_DEFAULT},
                .messages_per_second = MESSAGES_DEFAULT,
            },
    };
}

static const void *value_of(enum gd_setting_id id, const struct gd_server_options *options) {
    return (const char *)options + gd_settings[id].offset;
}

static void *place_of(enum gd_setting_id id, struct gd_server_options *options) {
    return (char *)options + gd_settings[id].offset;
}

int gd_setting_parse(enum gd_setting_id id, const char *name, const char *text, struct gd_server_options *options,
                     struct gd_error *ret_error) {
    return gd_settings[id].kind->parse(&gd_settings[id], name, text, place_of(id, options), ret_error);
}

void gd_setting_copy(enum gd_setting_id id, struct gd_server_options *options, const struct gd_server_options *from) {
    memcpy(place_of(id, options), value_of(id, from), gd_settings[id].kind->bytes);
}

bool gd_setting_is_same(enum gd_setting_id id, const struct gd_server_options *options,
                        const struct gd_server_options *other) {
    const void *value = value_of(id, options), *other_value = value_of(id, other);
    if (!gd_setting_is_path(id))
        return memcmp(value, other_value, gd_settings[id].kind->bytes) == 0;
    const char *text = *(const char *const *)value, *other_text = *(const char *const *)other_value;
    return text && other_text ? strcmp(text, other_text) == 0 : text == other_text;
}

bool gd_setting_is_path(enum gd_setting_id id) {
    return gd_settings[id].kind == &path;
}

bool gd_setting_is_list(enum gd_setting_id id) {
    return gd_settings[id].kind == &users || gd_settings[id].kind == &groups;
}

void gd_setting_print(enum gd_setting_id id, const struct gd_server_options *options,
                      char ret_text[static GD_SETTING_TEXT_BYTES]) {
    const struct gd_setting *setting = &gd_settings[id];
    if (!setting->kind->print(value_of(id, options), ret_text, GD_SETTING_TEXT_BYTES))
        snprintf(ret_text, GD_SETTING_TEXT_BYTES, "(%s)", setting->unset_text);
}

enum gd_setting_id gd_setting_find(const char *key) {
    for (int id = 0; id < GD_SETTINGS; id++)
        if (strcmp(gd_settings[id].key, key) == 0)
            return (enum gd_setting_id)id;
    return GD_SETTINGS;
}
