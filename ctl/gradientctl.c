// gradientctl: looks at what gradientd has written, and at what it is doing.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command.h"

static const struct gd_command commands[] = {
    {"check", "[--growing] [--json] FILE...",
     "say whether event files are whole: checksums, events, tags, times and steps.\n"
     "      Prints each fault with its record's offset, then a line per file.\n"
     "      Steps must rise in each tag of a file that gradientd wrote; in others a note\n"
     "      says where they do not. --growing: a file may end inside a record, as one\n"
     "      that is being written. --json: one JSON object per file",
     gd_check_run},
    {"dump", "[--json] FILE",
     "print every scalar of an event file as CSV: wall_time,step,tag,value\n"
     "      --json: one JSON object per line, also for what is no scalar, with its kind",
     gd_dump_run},
    {"status", "[--json] [--socket PATH] [--timeout SECONDS] [RUN]",
     "say how the daemon and its runs are doing: a table, or one run at length.\n"
     "      Users see their own runs, root and the daemon's admin group see all.\n"
     "      --json: one JSON object, with the names of proto/gradientd.proto.\n"
     "      --socket: where the daemon is (default: $GRADIENTD_SOCKET, else\n"
     "      $XDG_RUNTIME_DIR/gradientd/socket, else /run/gradientd/socket).\n"
     "      --timeout: how long it may take to answer (default: 5)",
     gd_status_run},
    {"top", "[--json] [--interval SECONDS] [--count N] [--socket PATH] [--timeout SECONDS]",
     "show that table again and again, on the whole terminal, until q is pressed.\n"
     "      --interval: between two of them (default: 1). --count: how many",
     gd_top_run},
    {"alerts", "[--json] [--follow] [--socket PATH] [--timeout SECONDS]",
     "print what the rules said of the runs lately, also of those that have ended.\n"
     "      --follow: and whatever they say from now on",
     gd_alerts_run},
    {"doctor", "[--json] [--socket PATH] [--timeout SECONDS]",
     "look for what keeps trainings from being watched, and say what to do", gd_doctor_run},
    {"record", "[--socket PATH] [--level N] [--force] [--json] FILE -- COMMAND [ARG...]",
     "run a command, and record what its trainers send to the daemon: a gzip TFRecord\n"
     "      file a run, FILE, FILE.2 and so on. --socket: where the daemon listens, else where\n"
     "      clients look. --level: of gzip, 0 to 9, 1 without it. --force: replace what is\n"
     "      there. --json: one JSON object per recording at the end. Exits as COMMAND does,\n"
     "      or with 1 if a recording is not whole",
     gd_record_run},
    {"replay", "[--output FILE | --logdir DIR] [--workers N] [--force] [--json] RECORDING",
     "compute a recorded run again, without a daemon: the same event file, byte for byte.\n"
     "      --output: where to, else RECORDING.tfevents; --logdir: or to the run's directory\n"
     "      there. --workers: threads, 1 to 64, else one a core. --force: replace what is\n"
     "      there. --json: one JSON object",
     gd_replay_run},
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

int gd_command_usage_error(const struct gd_command *command, const char *problem, const char *what) {
    fprintf(stderr, "gradientctl %s: %s%s\nusage: gradientctl %s %s\n", command->name, problem, what, command->name,
            command->arguments);
    return GD_EXIT_USAGE;
}

int gd_command_flush(void) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return GD_EXIT_DONE;
    fprintf(stderr, "gradientctl: cannot write: %s\n", strerror(errno));
    return GD_EXIT_DAMAGE;
}

static void print_help(FILE *stream) {
    fputs("usage: gradientctl COMMAND [ARGUMENT...]\n       gradientctl --version\n       gradientctl "
          "--help\n\ncommands:\n",
          stream);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stream, "  %s %s\n      %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    fputs("\nexit status: 0 done; 1 a file is damaged or cannot be read, no daemon answers, there is no such run, or\n"
          "`doctor` found a problem; 2 wrong usage, or a file that `check` cannot read\n",
          stream);
}

static const struct gd_command *command_find(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

// No descriptor of ours may have the number of a standard one that is closed: what is printed would be written into a
// file or a socket. What is opened for reading alone cannot be written, as one that is closed cannot.
static void open_standard_descriptors(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv) {
    open_standard_descriptors();
    if (argc < 2) {
        print_help(stderr);
        return GD_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("gradientctl " GD_VERSION);
        return gd_command_flush();
    }
    if (strcmp(argv[1], "--help") == 0 || (argc > 2 && strcmp(argv[2], "--help") == 0)) {
        print_help(stdout);
        return gd_command_flush();
    }

    const struct gd_command *command = command_find(argv[1]);
    if (!command) {
        fprintf(stderr, "gradientctl: unknown command %s (see gradientctl --help)\n", argv[1]);
        return GD_EXIT_USAGE;
    }
    return command->run(command, argc - 2, argv + 2);
}
