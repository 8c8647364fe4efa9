// One line an event, on stderr, with the priority prefix that journald understands when stderr is the journal.
#pragma once

enum gd_log_level {
    GD_LOG_ERROR = 3, // syslog's numbers
    GD_LOG_WARNING = 4,
    GD_LOG_INFO = 6,
};

// The least important that is logged from now on; GD_LOG_INFO at first. Any thread.
void gd_log_set_level(enum gd_log_level level);

// Thread-safe; control characters become '?', so a line stays a line.
__attribute__((format(printf, 2, 3))) void gd_log(enum gd_log_level level, const char *format, ...);
