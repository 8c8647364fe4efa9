// A child of the test whose system calls are counted one by one.
#pragma once

#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/types.h>

// Forks a child that calls `run`, which must not return, and waits until that has called tracer_begin().
pid_t tracer_start(void (*run)(const void *context), const void *context);

// In the child, once: what it does from here on is seen.
void tracer_begin(void);

// In the child: a system call that nothing else makes, to find the calls of interest by.
void tracer_mark(void);
bool tracer_is_mark(const struct __ptrace_syscall_info *call);

// Runs a stopped tracee to its next system call's entry. Returns false when it has ended, with its wait status.
bool tracer_next_entry(pid_t pid, struct __ptrace_syscall_info *ret_call, int *ret_status);

// Whether the call returns at once, whatever the other processes do: a socket that is made must be non-blocking, so
// that connect() on it is, and nothing waits for a lock, a child or a while.
bool tracer_cannot_block(const struct __ptrace_syscall_info *call);
