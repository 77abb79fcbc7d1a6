/* SPDX-License-Identifier: MIT */
/* The drivers there are. */
#include "block/drivers.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

const struct block_driver *const block_drivers[] = {
    /* One a line: */
    /* clang-format off */
    &block_driver_raw,
    &block_driver_file,
    &block_driver_host_device,
    &block_driver_null_co,
    &block_driver_null_aio,
    &block_driver_qcow2,
    &block_driver_blkdebug,
    &block_driver_throttle,
    &block_driver_copy_on_read,
    &block_driver_nbd,
    NULL,
    /* clang-format on */
};

static const struct block_driver *test_driver;

const struct block_driver *block_driver_find(const char *name)
{
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name)) {
            return *driver;
        }
    }
    return test_driver && !strcmp(test_driver->name, name) ? test_driver : NULL;
}

char *block_driver_names(void)
{
    char *names = xstrdup("");

    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        char *longer = xasprintf("%s%s%s", names, *names ? ", " : "", (*driver)->name);
        free(names);
        names = longer;
    }
    return names;
}

void block_driver_set_test(const struct block_driver *driver)
{
    test_driver = driver;
}
