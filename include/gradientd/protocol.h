// What both ends of the socket agree on. See docs/protocol.md.
#pragma once

#include <stdint.h>

enum {
    GRADIENTD_PROTOCOL_VERSION = 1,
    GRADIENTD_LAYOUT_VERSION = 3,

    GRADIENTD_START_KIND_MIN = 5, // StreamKind of the first start vector

    GRADIENTD_FRAME_HEADER_BYTES = 8,      // u32le message_bytes, u32le payload_bytes
    GRADIENTD_MESSAGE_BYTES_MAX = 1 << 20, // a message holds names and numbers, elements go elsewhere
    GRADIENTD_TABLE_BYTES_MAX = 32 << 20,  // 65,536 groups with names of 255 bytes take 17 MiB
    GRADIENTD_PAYLOAD_BYTES_MAX = 1 << 30, // of a Snapshot with its elements inline
    GRADIENTD_TABLE_ENTRY_BYTES = 17,      // of a group table entry, without its name

    GRADIENTD_GROUPS_MAX = 65536,          // twice the tensors of the largest published models
    GRADIENTD_PARAMETER_GROUPS_MAX = 4096, // a Snapshot names each one's rate within one message
    GRADIENTD_NAME_BYTES_MAX = 255,        // of a group or a tag: a file name's limit
    GRADIENTD_RUN_BYTES_MAX = 1023,        // of a run's name: a path still fits PATH_MAX with its logdir
    GRADIENTD_LAG_MAX = 32,                // beyond it the slots outweigh the model and its optimiser
    GRADIENTD_INFLIGHT_MAX = 64,
    GRADIENTD_RECENT_ALERTS = 256,          // of all runs, that the daemon keeps for whoever asks
    GRADIENTD_USER_TAGS_MAX = 1024,         // a run's own scalars; bounds the outbox
    GRADIENTD_PER_GROUP_DEFAULT = 8,        // series a run has per group without being asked: keeps it under 60 tags
    GRADIENTD_PER_GROUP_MAX = 4096,         // groups shown one by one; bounds the outbox
    GRADIENTD_FOLD_DEPTH_MAX = 255,         // components of a name: more than the longest can have
    GRADIENTD_PATTERNS_MAX = 64,            // of group names, include and exclude each
    GRADIENTD_SQUARED_NORMS_MAX = 64,       // of smaller batches in a step ...
    GRADIENTD_GROUP_NORMS_MAX = 65536,      // ... and of groups in all of them: half of a message
    GRADIENTD_HPARAMS_MAX = 256,            // more columns than anybody compares runs by
    GRADIENTD_HPARAM_TEXT_BYTES_MAX = 1023, // a cell of that table; all of them fit a message
    GRADIENTD_FDS_MAX = 3,                  // an Attach: memory, event file, pidfd
};
