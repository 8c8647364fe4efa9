// The socket that a command's trainers find, in a private directory, and the daemon behind it. While no daemon answers
// there, it answers nobody either: a trainer sees what it would see without it.
#pragma once

#include <stdbool.h>
#include <sys/un.h>

struct gd_gate {
    char directory[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    struct sockaddr_un address;
    struct sockaddr_un daemon;
    int fd;
    bool open;    // it listens
    bool pausing; // nobody could be let in for now: the caller may try again after GD_GATE_LOOK_MS, and clears this
};

enum { GD_GATE_LOOK_MS = 20 }; // how soon a daemon that comes back is found; a look costs some microseconds

// Makes the directory and the socket. `daemon_path` is where the daemon listens. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_gate_init(struct gd_gate *gate, const char *daemon_path);
void gd_gate_deinit(struct gd_gate *gate);

// Looks whether a daemon answers: trainers are let in while one does.
void gd_gate_look(struct gd_gate *gate);

// Lets one in: a trainer's socket, and one to the daemon for it. Returns whether there are. Else the gate is
// shut, where the daemon does not answer, or pausing.
__attribute__((warn_unused_result)) bool gd_gate_accept(struct gd_gate *gate, int *ret_trainer, int *ret_daemon);
