#include "mend_checksums.h"

#include "bytes.h"
#include "crc32c.h"

enum { LENGTH_BYTES = 8, CHECKSUM_BYTES = 4 };

void mend_checksums(uint8_t *records, size_t bytes) {
    size_t at = 0;
    while (bytes - at >= LENGTH_BYTES + CHECKSUM_BYTES) {
        uint64_t record_bytes = gd_read_u64le(records + at);
        gd_write_u32le(records + at + LENGTH_BYTES, gd_crc32c_masked(records + at, LENGTH_BYTES));
        at += LENGTH_BYTES + CHECKSUM_BYTES;
        if (bytes - at < CHECKSUM_BYTES || record_bytes > bytes - at - CHECKSUM_BYTES)
            return;
        gd_write_u32le(records + at + record_bytes, gd_crc32c_masked(records + at, record_bytes));
        at += record_bytes + CHECKSUM_BYTES;
    }
}
