/* SPDX-License-Identifier: MIT */
/*
 * The limits of a throttle group: bytes and operations per second, in total or for reads and writes.
 *
 *   NAME             rate in the long run, per second; 0: no limit
 *   NAME-max         rate of a burst, per second; 0: bursts of a tenth of a second at `rate`
 *   NAME-max-length  how long a burst may last, seconds
 *   iops-size        a request of more bytes counts as several operations
 */
#ifndef FERRY_BLOCK_THROTTLE_CONFIG_H
#define FERRY_BLOCK_THROTTLE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/options.h"

#define THROTTLE_VALUE_MAX UINT64_C(1000000000000000)

enum throttle_limit_id {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL,
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE_LIMITS
};
extern const char *const throttle_limit_names[THROTTLE_LIMITS]; /* "bps-total" */

struct throttle_limit {
    uint64_t rate, burst;  /* bytes or operations per second */
    uint64_t burst_length; /* seconds, at least 1 */
};

struct throttle_config {
    struct throttle_limit limit[THROTTLE_LIMITS];
    uint64_t iops_size; /* bytes; 0: a request is an operation */
};

void throttle_config_init(struct throttle_config *config); /* no limits */
/* Reads "PREFIXbps-total", "PREFIXbps-total-max" … of opts over what is there. */
bool throttle_config_parse(struct throttle_config *config, struct options *opts, const char *prefix,
                           struct error **errp);
/* Whether the values go together. */
bool throttle_config_check(const struct throttle_config *config, struct error **errp);
bool throttle_config_is_on(const struct throttle_config *config); /* has a limit */

#endif
