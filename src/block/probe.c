/* SPDX-License-Identifier: MIT */
/* Image formats by their first bytes. See probe.h. */
#include "block/probe.h"

#include <stdbool.h>
#include <string.h>

#include "base/range.h"

#define MAGIC(format, offset, bytes)                                                               \
    {                                                                                              \
        format, offset, sizeof(bytes) - 1, bytes                                                   \
    }

static const struct magic {
    const char *format;
    size_t offset, size;
    const char *bytes;
} magics[] = {
    MAGIC("qcow", 0, "QFI\xfb\0\0\0\1"),
    MAGIC("qcow2", 0, "QFI\xfb"),
    MAGIC("qed", 0, "QED\0"),
    MAGIC("vmdk", 0, "KDMV"),
    MAGIC("vmdk", 0, "COWD"),
    MAGIC("vmdk", 0, "# Disk DescriptorFile"),
    MAGIC("vdi", 0x40, "\x7f\x10\xda\xbe"),
    MAGIC("vhdx", 0, "vhdxfile"),
    MAGIC("vpc", 0, "conectix"),
    MAGIC("luks", 0, "LUKS\xba\xbe"),
    MAGIC("parallels", 0, "WithoutFreeSpace"),
    MAGIC("parallels", 0, "WithouFreSpacExt"),
    MAGIC("bochs", 0, "Bochs Virtual HD Image"),
    MAGIC("cloop", 0, "#!/bin/sh\n#V2.0 Format\n"),
};

/* A VMware descriptor is a text: its first line may come after comments and empty lines. */
static bool is_vmdk_text(const char *data)
{
    size_t at = 0;

    while (at < PROBE_SIZE) {
        const char *line = data + at;
        const char *newline = memchr(line, '\n', PROBE_SIZE - at);
        size_t length = newline ? newline - line : PROBE_SIZE - at;

        at += length + 1;
        while (length && (line[length - 1] == '\r' || line[length - 1] == ' ')) {
            length--;
        }
        if (length && line[0] != '#') {
            return length >= 8 && !memcmp(line, "version=", 8);
        }
        if (!newline) {
            break;
        }
    }
    return false;
}

const char *block_probe_format(const void *data)
{
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        const struct magic *magic = &magics[i];
        if (!memcmp((const char *)data + magic->offset, magic->bytes, magic->size)) {
            return magic->format;
        }
    }
    return is_vmdk_text(data) ? "vmdk" : "raw";
}
