#include "event_repair.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "crc32c.h"

// A record as event.h describes it; its Event is  wall_time = 1: 8 bytes | an unknown field: length, zeros.
enum {
    LENGTH_BYTES = 8,
    CHECKSUM_BYTES = 4,
    HEADER_BYTES = GD_EVENT_REPAIR_HEADER_BYTES,
    OVERHEAD_BYTES = HEADER_BYTES + CHECKSUM_BYTES,

    WALL_TIME_KEY = 1 << 3 | 1, // 8 bytes
    UNKNOWN_KEY = 15 << 3 | 2,  // a length and so many bytes; the last field number whose key is one byte
    UNKNOWN_LENGTH_BYTES = 4,   // always: else there would be sizes that no record has
    PREFIX_BYTES = 1 + sizeof(double) + 1 + UNKNOWN_LENGTH_BYTES,

    FILLER_BYTES_MIN = GD_EVENT_REPAIR_FILLER_BYTES_MIN,
    FILLER_BYTES_MAX = 1 << 20, // readers hold a whole record in memory
};
static_assert(HEADER_BYTES == LENGTH_BYTES + CHECKSUM_BYTES, "see the header file");
static_assert(FILLER_BYTES_MIN == OVERHEAD_BYTES + PREFIX_BYTES, "see the header file");

bool gd_event_repair_is_header(const uint8_t *header, uint64_t *ret_data_bytes) {
    *ret_data_bytes = gd_read_u64le(header);
    return gd_read_u32le(header + LENGTH_BYTES) == gd_crc32c_masked(header, LENGTH_BYTES);
}

int gd_event_repair_find_end(int fd, uint64_t bytes, uint64_t *ret_end) {
    uint64_t end = 0, data_bytes;
    uint8_t header[HEADER_BYTES];

    while (bytes - end >= OVERHEAD_BYTES) {
        ssize_t result = pread(fd, header, sizeof(header), (off_t)end);
        if (result < 0 && errno == EINTR)
            continue;
        if (result < 0 && errno != EBADF)
            return -errno;
        if (result != (ssize_t)sizeof(header) || !gd_event_repair_is_header(header, &data_bytes) ||
            data_bytes > bytes - end - OVERHEAD_BYTES)
            break;
        end += OVERHEAD_BYTES + data_bytes;
    }
    *ret_end = end;
    return 0;
}

// The length in seven-bit groups, of which all but the last say that another one follows, needed or not.
static void put_unknown_length(uint8_t *bytes, uint64_t length) {
    for (int i = 0; i < UNKNOWN_LENGTH_BYTES; i++)
        bytes[i] = (uint8_t)((length >> 7 * i & 0x7f) | (i < UNKNOWN_LENGTH_BYTES - 1 ? 0x80 : 0));
}

static uint32_t checksum_with_zeros(const uint8_t *prefix, size_t prefix_bytes, uint64_t zeros) {
    static const uint8_t block[4096];
    uint32_t crc = gd_crc32c(0, prefix, prefix_bytes);
    for (size_t bytes; zeros > 0; zeros -= bytes) {
        bytes = zeros < sizeof(block) ? (size_t)zeros : sizeof(block);
        crc = gd_crc32c(crc, block, bytes);
    }
    return gd_crc32c_mask(crc);
}

static int write_all(int fd, const uint8_t *data, size_t bytes, uint64_t offset) {
    while (bytes > 0) {
        ssize_t result = pwrite(fd, data, bytes, (off_t)offset);
        if (result < 0 && errno == EINTR)
            continue;
        if (result <= 0)
            return result < 0 ? -errno : -EIO;
        data += result;
        bytes -= (size_t)result;
        offset += (uint64_t)result;
    }
    return 0;
}

// A record of so many bytes: what it begins and ends with.
struct filler {
    uint64_t bytes;
    uint8_t head[HEADER_BYTES + PREFIX_BYTES];
    uint8_t checksum[CHECKSUM_BYTES];
};

static void make_filler(struct filler *filler, uint64_t bytes, double wall_time) {
    uint8_t *head = filler->head, *prefix = head + HEADER_BYTES;
    uint64_t zeros = bytes - FILLER_BYTES_MIN, time_bits;

    filler->bytes = bytes;
    gd_write_u64le(head, bytes - OVERHEAD_BYTES);
    gd_write_u32le(head + LENGTH_BYTES, gd_crc32c_masked(head, LENGTH_BYTES));
    memcpy(&time_bits, &wall_time, sizeof(time_bits));
    prefix[0] = WALL_TIME_KEY;
    gd_write_u64le(prefix + 1, time_bits);
    prefix[1 + sizeof(time_bits)] = UNKNOWN_KEY;
    put_unknown_length(prefix + 1 + sizeof(time_bits) + 1, zeros);
    gd_write_u32le(filler->checksum, checksum_with_zeros(prefix, PREFIX_BYTES, zeros));
}

// Where the file ends. Its last bytes come last: whoever finds the file cut off here again, after the daemon's end too,
// finds no whole record.
static int append_filler(int fd, uint64_t offset, const struct filler *filler) {
    int result = write_all(fd, filler->head, sizeof(filler->head), offset);
    return result < 0
               ? result
               : write_all(fd, filler->checksum, sizeof(filler->checksum), offset + filler->bytes - CHECKSUM_BYTES);
}

int gd_event_repair_fill(int fd, uint64_t from, uint64_t to, double wall_time) {
    struct filler filler = {0};
    if (ftruncate(fd, (off_t)from) < 0)
        return -errno;
    while (from < to) {
        uint64_t bytes = to - from >= FILLER_BYTES_MAX + FILLER_BYTES_MIN ? FILLER_BYTES_MAX : to - from;
        if (filler.bytes != bytes)
            make_filler(&filler, bytes, wall_time);
        int result = append_filler(fd, from, &filler);
        if (result < 0)
            return result;
        from += bytes;
    }
    return 0;
}
