#include "check_records.h"

#include <assert.h>

#include "bytes.h"
#include "crc32c.h"
#include "event.h"

void check_records(const uint8_t *records, uint64_t bytes) {
    while (bytes > 0) {
        assert(bytes >= GD_RECORD_OVERHEAD_BYTES);
        uint64_t data_bytes = gd_read_u64le(records);
        assert(gd_read_u32le(records + 8) == gd_crc32c_masked(records, 8));
        assert(data_bytes <= bytes - GD_RECORD_OVERHEAD_BYTES);
        assert(gd_read_u32le(records + 12 + data_bytes) == gd_crc32c_masked(records + 12, data_bytes));
        records += GD_RECORD_OVERHEAD_BYTES + data_bytes;
        bytes -= GD_RECORD_OVERHEAD_BYTES + data_bytes;
    }
}
