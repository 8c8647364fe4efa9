// A daemon without its listener: sessions on a loop of their own, with the quota, the pool and the writers of a real
// one.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Starts it, once.
void session_host_init(void);

// A new life: `pooled` has every submission worked on by the pool, however little it is.
void session_host_begin(bool pooled);

// Serves one end of a connection, which it takes over.
void session_host_serve(int fd);

// One turn of the loop, with what is there.
void session_host_turn(void);

// Turns until all sessions wait for their clients, or for none.
void session_host_settle(void);

// The daemon stops: sessions take what has arrived, finish it, and go.
void session_host_stop(void);

// Turns until no session is left, and checks that none of them left a charge behind.
void session_host_end(void);
