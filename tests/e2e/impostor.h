// A process that listens where a daemon did, and is none.
#pragma once

#include <sys/types.h>

enum impostor_manner {
    IMPOSTOR_GARBAGE,  // says what is no message, another kind of it on each connection
    IMPOSTOR_SILENCE,  // takes the connection and never answers
    IMPOSTOR_CLOSES,   // closes it at once
    IMPOSTOR_BOMB,     // says one message that is many times as large once it is unpacked
    IMPOSTOR_WELCOMES, // answers with a Welcome and closes the connection at once
    IMPOSTOR_REFUSES,  // answers with an Error of many lines and 600 bytes
    IMPOSTOR_YIELDS,   // answers with a Welcome, puts the socket PATH.next in its place and closes the connection
};

// Takes the place of the socket at `path`. Ends with the test, or with impostor_stop().
pid_t impostor_start(const char *path, enum impostor_manner manner);
void impostor_stop(pid_t impostor);
