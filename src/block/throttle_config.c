/* SPDX-License-Identifier: MIT */
/* The limits of a throttle group. See throttle_config.h. */
#include "block/throttle_config.h"

#include <stdlib.h>

#include "base/alloc.h"

const char *const throttle_limit_names[THROTTLE_LIMITS] = {
    [THROTTLE_BPS_TOTAL] = "bps-total", [THROTTLE_BPS_READ] = "bps-read",
    [THROTTLE_BPS_WRITE] = "bps-write", [THROTTLE_IOPS_TOTAL] = "iops-total",
    [THROTTLE_IOPS_READ] = "iops-read", [THROTTLE_IOPS_WRITE] = "iops-write",
};

void throttle_config_init(struct throttle_config *config)
{
    *config = (struct throttle_config){0};
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        config->limit[i].burst_length = 1;
    }
}

static bool get(struct options *opts, const char *prefix, const char *name, const char *suffix,
                uint64_t *value, struct error **errp)
{
    autofree char *key = xasprintf("%s%s%s", prefix, name, suffix);

    return options_get_size(opts, key, 1, value, errp);
}

bool throttle_config_parse(struct throttle_config *config, struct options *opts, const char *prefix,
                           struct error **errp)
{
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        struct throttle_limit *limit = &config->limit[i];
        const char *name = throttle_limit_names[i];

        if (!get(opts, prefix, name, "", &limit->rate, errp) ||
            !get(opts, prefix, name, "-max", &limit->burst, errp) ||
            !get(opts, prefix, name, "-max-length", &limit->burst_length, errp)) {
            return false;
        }
    }
    return get(opts, prefix, "iops-size", "", &config->iops_size, errp);
}

static bool check_limit(const struct throttle_limit *limit, const char *name, struct error **errp)
{
    if (limit->rate > THROTTLE_VALUE_MAX || limit->burst > THROTTLE_VALUE_MAX) {
        error_set(errp, "%s: bps/iops/max values must be within [0, %llu]", name,
                  (unsigned long long)THROTTLE_VALUE_MAX);
    } else if (!limit->burst_length) {
        error_set(errp, "%s-max-length=0: the burst length cannot be 0", name);
    } else if (limit->burst_length > 1 && !limit->burst) {
        error_set(errp, "%s-max-length: burst length set without burst rate; give %s-max", name,
                  name);
    } else if (limit->burst && !limit->rate) {
        error_set(errp, "%s-max: bps_max/iops_max require corresponding bps/iops values; give %s",
                  name, name);
    } else if (limit->burst && limit->burst < limit->rate) {
        error_set(errp,
                  "%s-max=%llu: bps_max/iops_max cannot be lower than bps/iops, which is %llu",
                  name, (unsigned long long)limit->burst, (unsigned long long)limit->rate);
    } else if (limit->burst && limit->burst_length > THROTTLE_VALUE_MAX / limit->burst) {
        error_set(errp, "%s-max-length=%llu: burst length too high for this burst rate", name,
                  (unsigned long long)limit->burst_length);
    } else {
        return true;
    }
    return false;
}

bool throttle_config_check(const struct throttle_config *config, struct error **errp)
{
    const struct throttle_limit *limit = config->limit;
    bool counts_operations = false;

    for (int total = 0; total < THROTTLE_LIMITS; total += 3) {
        if ((limit[total].rate && (limit[total + 1].rate || limit[total + 2].rate)) ||
            (limit[total].burst && (limit[total + 1].burst || limit[total + 2].burst))) {
            error_set(errp,
                      "bps/iops/max total values and read/write values cannot be used at the same "
                      "time: leave out %s or %s and %s",
                      throttle_limit_names[total], throttle_limit_names[total + 1],
                      throttle_limit_names[total + 2]);
            return false;
        }
    }
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        if (!check_limit(&limit[i], throttle_limit_names[i], errp)) {
            return false;
        }
        counts_operations |= i >= THROTTLE_IOPS_TOTAL && limit[i].rate;
    }
    if (config->iops_size && !counts_operations) {
        error_set(errp, "iops size requires an iops value to be set; give iops-total");
        return false;
    }
    return true;
}

bool throttle_config_is_on(const struct throttle_config *config)
{
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        if (config->limit[i].rate) {
            return true;
        }
    }
    return false;
}
