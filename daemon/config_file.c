#include "config_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

static const char UNKNOWN_SECTION[] = "[?]";

struct parser {
    const char *path;
    const char *at, *end;        // of what is not read yet
    unsigned line;               // the one that inih has, from 1
    bool is_entry;               // it should say something, and inih has not said what
    enum gd_setting_id list;     // that the next line may go on with; GD_SETTINGS: none
    bool goes_on;                // this one does
    unsigned lines[GD_SETTINGS]; // where a setting is in this file, 0: nowhere
    struct gd_config *config;
    struct gd_config_report *report;
    int result;
};

// ---- lines, before inih has them

// Copies the next line, without its end, to `line`, tabs as spaces. Returns its bytes, of which at most
// GD_CONFIG_LINE_BYTES_MAX were copied.
static size_t take_line(struct parser *parser, char line[static GD_CONFIG_LINE_BYTES_MAX + 1]) {
    const char *newline = memchr(parser->at, '\n', (size_t)(parser->end - parser->at));
    const char *end = newline ? newline : parser->end;
    size_t bytes = (size_t)(end - parser->at);
    if (bytes > 0 && end[-1] == '\r')
        bytes--;
    size_t copied = bytes < GD_CONFIG_LINE_BYTES_MAX ? bytes : GD_CONFIG_LINE_BYTES_MAX;
    for (size_t i = 0; i < copied; i++)
        line[i] = (char)(parser->at[i] == '\t' ? ' ' : parser->at[i]);
    line[copied] = '\0';
    parser->at = newline ? newline + 1 : parser->end;
    parser->line++;
    return bytes;
}

static bool is_known_section(const char *name, size_t bytes) {
    for (size_t i = 0; i < GD_SETTINGS; i++)
        if (strlen(gd_settings[i].section) == bytes && memcmp(gd_settings[i].section, name, bytes) == 0)
            return true;
    return false;
}

// What is wrong with a line that inih would take, or leave without a word; NULL: nothing.
static const char *fault_of_entry(const struct parser *parser, const char *line) {
    size_t bytes = strlen(line), indented = strspn(line, " ");
    if (strstr(line, " ;") || strstr(line, " #"))
        return "a comment has a line of its own";
    if (indented > 0 && parser->list == GD_SETTINGS)
        return "a line that begins with a space goes on with allow-users or allow-groups, which must be above it";
    if (*line == '[' && line[bytes - 1] != ']')
        return "a section is a name between [ and ], and nothing else";
    if (*line == '[' && !is_known_section(line + 1, bytes - 2))
        return "there is no such section; they are [daemon], [socket], [access], [limits] and [metrics]";
    return NULL;
}

static void trim_end(char *line) {
    for (size_t bytes = strlen(line); bytes > 0 && line[bytes - 1] == ' ';)
        line[--bytes] = '\0';
}

// Leaves nothing of a line that is a comment, or wrong, which is said then.
static void check_line(struct parser *parser, char *line, size_t bytes) {
    struct gd_config_report *report = parser->report;
    if (bytes > GD_CONFIG_LINE_BYTES_MAX) {
        gd_config_say(report, parser->path, parser->line, "the line has %zu bytes, the limit is %d", bytes,
                      GD_CONFIG_LINE_BYTES_MAX);
        *line = '\0';
        return;
    }
    if (!gd_text_is_clean(line, bytes)) {
        gd_config_say(report, parser->path, parser->line,
                      "byte %zu of the line is neither printable ASCII nor part of a UTF-8 character",
                      gd_text_clean_bytes(line, bytes) + 1);
        *line = '\0';
        return;
    }
    trim_end(line);
    size_t indented = strspn(line, " ");
    if (line[indented] == '#' || line[indented] == ';')
        *line = '\0';
    const char *fault = *line ? fault_of_entry(parser, line) : NULL;
    if (fault) {
        gd_config_say(report, parser->path, parser->line, "%s: %s", line + indented, fault);
        strcpy(line, *line == '[' ? UNKNOWN_SECTION : ""); // the keys of a section that is wrong are not those before
    }
}

// A line that inih made nothing of.
static void check_taken(struct parser *parser) {
    if (parser->is_entry)
        gd_config_say(parser->report, parser->path, parser->line,
                      "the line is neither [section] nor key = value, nor a comment");
    parser->is_entry = false;
}

// What inih reads lines with, as with fgets().
static char *next_line(char *line, int size, void *stream) {
    struct parser *parser = stream;
    assert(size > GD_CONFIG_LINE_BYTES_MAX);
    check_taken(parser);
    if (parser->at == parser->end)
        return NULL;
    check_line(parser, line, take_line(parser, line));
    parser->goes_on = *line == ' ';
    parser->is_entry = *line && *line != '[';
    if (*line == '[')
        parser->list = GD_SETTINGS;
    return line;
}

// ---- what inih makes of them

static void say_unknown(struct parser *parser, const char *section, const char *key) {
    char keys[GD_ERROR_TEXT_BYTES] = "";
    for (size_t i = 0; i < GD_SETTINGS; i++)
        if (strcmp(gd_settings[i].section, section) == 0) {
            if (*keys)
                strcat(keys, ", ");
            strcat(keys, gd_settings[i].key); // a section's keys are known to fit
        }
    gd_config_say(parser->report, parser->path, parser->line, "[%s] has no key %s; its keys are %s", section, key,
                  keys);
}

// The setting that a line means; GD_SETTINGS where that is none, or comes a second time, which is said then.
static enum gd_setting_id find_setting(struct parser *parser, const char *section, const char *key) {
    enum gd_setting_id id = gd_setting_find(key);
    if (!is_known_section(section, strlen(section))) {
        if (!*section) // another was told of at its own line
            gd_config_say(parser->report, parser->path, parser->line, "%s comes before any [section]", key);
        return GD_SETTINGS;
    }
    if (id == GD_SETTINGS) {
        say_unknown(parser, section, key);
        return GD_SETTINGS;
    }
    if (strcmp(section, gd_settings[id].section) != 0) {
        gd_config_say(parser->report, parser->path, parser->line, "[%s] has no key %s, which belongs to [%s]", section,
                      key, gd_settings[id].section);
        return GD_SETTINGS;
    }
    if (parser->lines[id] > 0) {
        gd_config_say(parser->report, parser->path, parser->line, "[%s] %s is there already, in line %u", section, key,
                      parser->lines[id]);
        return GD_SETTINGS;
    }
    return id;
}

// The text that a path is borrowed from, the configuration's; NULL: out of memory.
static const char *keep_string(struct gd_config *config, enum gd_setting_id id, const char *value) {
    char *string = strdup(value);
    if (!string)
        return NULL;
    free(config->strings[id]);
    config->strings[id] = string;
    return string;
}

static int set(struct parser *parser, enum gd_setting_id id, char *value) {
    struct gd_config *config = parser->config;
    struct gd_error error;
    char name[64];
    snprintf(name, sizeof(name), "[%s] %s", gd_settings[id].section, gd_settings[id].key);
    const char *text = value;
    if (gd_setting_is_path(id) && *value != '/') {
        gd_config_say(parser->report, parser->path, parser->line, "%s is %s, it must be an absolute path", name, value);
        return 0;
    }
    if (gd_setting_is_path(id) && !(text = keep_string(config, id, value)))
        return -ENOMEM;
    if (gd_setting_is_list(id) && value[strlen(value) - 1] == ',') // the next line goes on
        value[strlen(value) - 1] = '\0';
    if (gd_setting_parse(id, name, text, &config->options, &error) < 0)
        gd_config_say(parser->report, parser->path, parser->line, "%s", error.text);
    return 0;
}

static void set_default(struct gd_config *config, enum gd_setting_id id) {
    struct gd_server_options defaults = gd_settings_default();
    gd_setting_copy(id, &config->options, &defaults);
}

static int handle(void *context, const char *section, const char *key, const char *value) {
    struct parser *parser = context;
    char text[GD_CONFIG_LINE_BYTES_MAX + 1];
    enum gd_setting_id id = parser->goes_on ? parser->list : find_setting(parser, section, key);
    parser->is_entry = false;
    if (!parser->goes_on)
        parser->list = id < GD_SETTINGS && gd_setting_is_list(id) ? id : GD_SETTINGS;
    if (id == GD_SETTINGS)
        return 1;
    if (!parser->goes_on) {
        parser->lines[id] = parser->line;
        parser->config->sources[id] = (struct gd_config_source){parser->path, parser->line};
        set_default(parser->config, id); // a list of an earlier file is replaced
    }
    strcpy(text, value); // part of a line
    if (*text && parser->result == 0)
        parser->result = set(parser, id, text);
    return 1;
}

int gd_config_file_parse(const char *path, const char *text, size_t bytes, struct gd_config *config,
                         struct gd_config_report *report) {
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    struct parser parser = {
        .path = path, .at = text, .end = text + bytes, .list = GD_SETTINGS, .config = config, .report = report};
    if (bytes >= 3 && memcmp(text, byte_order_mark, 3) == 0)
        parser.at += 3;
    int faulty_line = ini_parse_stream(next_line, &parser, handle, &parser);
    (void)faulty_line; // the first one alone, all of which were reported
    return parser.result;
}

// ---- the file

// All that `fd` has to say. Returns 0; or -ENOMEM, -EFBIG or another negative errno.
static int read_all(int fd, char **ret_text, size_t *ret_bytes) {
    char *text = malloc(GD_CONFIG_FILE_BYTES_MAX + 1);
    if (!text)
        return -ENOMEM;
    size_t used = 0;
    ssize_t bytes;
    while ((bytes = read(fd, text + used, GD_CONFIG_FILE_BYTES_MAX + 1 - used)) > 0)
        used += (size_t)bytes;
    if (bytes < 0 || used > GD_CONFIG_FILE_BYTES_MAX) {
        int result = bytes < 0 ? -errno : -EFBIG;
        free(text);
        return result;
    }
    *ret_text = text;
    *ret_bytes = used;
    return 0;
}

// Opens a regular file without waiting for anything else: a FIFO's other end, say. Returns it, or a negative errno.
static int open_regular(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        return fd;
    close(fd);
    return -EISDIR;
}

// Whoever left a link wants what it leads to read: without that the daemon might serve those whom it keeps out.
static bool is_link(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISLNK(status.st_mode);
}

static void say_unreadable(const char *path, int number, struct gd_config_report *report) {
    if (number == EISDIR)
        gd_config_say(report, path, 0, "this is no regular file");
    else if (number == EFBIG)
        gd_config_say(report, path, 0, "the file has more than %d bytes", GD_CONFIG_FILE_BYTES_MAX);
    else
        gd_config_say(report, path, 0, "cannot be read: %s", strerror(number));
}

int gd_config_file_read(const char *path, bool is_optional, struct gd_config *config, struct gd_config_report *report) {
    char *text = NULL;
    size_t bytes = 0;
    int fd = open_regular(path);
    if (is_optional && (fd == -ENOENT || fd == -ENOTDIR) && !is_link(path))
        return 0;
    int result = fd < 0 ? fd : read_all(fd, &text, &bytes);
    if (fd >= 0)
        close(fd);
    if (result == -ENOMEM)
        return result;
    if (result < 0) {
        say_unreadable(path, -result, report);
        return 1;
    }
    result = gd_config_file_parse(path, text, bytes, config, report);
    free(text);
    return result < 0 ? result : 1;
}
