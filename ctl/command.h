// What the commands of gradientctl have in common.
#pragma once

enum gd_exit_status {
    GD_EXIT_DONE = 0,
    GD_EXIT_DAMAGE = 1, // a file is damaged, or could not be read or printed
    GD_EXIT_FAILED = 1, // no daemon answers, it has no such run, or `doctor` found a problem
    GD_EXIT_USAGE = 2,  // wrong usage; `check`: a file cannot be opened or read either
};

// What unpacking one event may allocate: protobuf-c takes up to 60 times a hostile message's own bytes.
enum { GD_EVENT_MEMORY_BYTES_MAX = 256 << 20 };

// One command. `run` gets the arguments after the command's name and returns the exit status.
struct gd_command {
    const char *name;
    const char *arguments;
    const char *summary; // lines after the first are indented as the help has them
    int (*run)(const struct gd_command *command, int n_arguments, char **arguments);
};

// Says `problem` and `what` it is about on standard error, with the usage; returns GD_EXIT_USAGE.
int gd_command_usage_error(const struct gd_command *command, const char *problem, const char *what);

// Flushes standard output. Returns GD_EXIT_DONE, or GD_EXIT_DAMAGE having said why it could not be written.
int gd_command_flush(void);

int gd_check_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_dump_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_status_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_top_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_alerts_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_doctor_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_record_run(const struct gd_command *command, int n_arguments, char **arguments);
int gd_replay_run(const struct gd_command *command, int n_arguments, char **arguments);
