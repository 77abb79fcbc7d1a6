/* SPDX-License-Identifier: MIT */
#include "hw/block_conf.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/machine_lock.h"

#define BLOCK_SIZE_MIN 512
#define BLOCK_SIZE_MAX (2 * MiB)

static bool check_block_size(const struct device *dev, const char *name, uint32_t *size,
                             struct error **errp)
{
    if (*size == 0) {
        *size = BLOCK_SIZE_MIN;
    }
    if (*size < BLOCK_SIZE_MIN || *size > BLOCK_SIZE_MAX) {
        error_set(errp,
                  "Property %s.%s doesn't take value %" PRIu32 " (minimum: %d, maximum: %" PRIu64
                  ")",
                  dev->type->name, name, *size, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
        return false;
    }
    if (!is_power_of_2(*size)) {
        error_set(errp, "Property %s.%s doesn't take value %" PRIu32 ", it's not a power of 2",
                  dev->type->name, name, *size);
        return false;
    }
    return true;
}

static bool check_multiple(const struct block_conf *conf, const char *name, uint32_t size,
                           struct error **errp)
{
    if (size % conf->logical_block_size) {
        error_set(errp, "%s must be a multiple of logical_block_size", name);
        error_add_hint(errp, "%s is %" PRIu32 ", logical_block_size is %" PRIu32 ".", name, size,
                       conf->logical_block_size);
        return false;
    }
    return true;
}

static bool check_sizes(struct block_conf *conf, const struct device *dev, struct error **errp)
{
    bool physical_given = conf->physical_block_size != 0;

    if (!check_block_size(dev, "logical_block_size", &conf->logical_block_size, errp) ||
        !check_block_size(dev, "physical_block_size", &conf->physical_block_size, errp)) {
        return false;
    }
    if (!physical_given) {
        conf->physical_block_size = MAX(conf->physical_block_size, conf->logical_block_size);
    }
    if (conf->logical_block_size > conf->physical_block_size) {
        error_set(errp, "logical_block_size > physical_block_size not supported");
        return false;
    }
    if (conf->discard_granularity == UINT32_MAX) {
        conf->discard_granularity = conf->logical_block_size;
    }
    if (conf->min_io_size / conf->logical_block_size > UINT16_MAX) {
        error_set(errp, "min_io_size must not exceed %d logical blocks", UINT16_MAX);
        return false;
    }
    return check_multiple(conf, "min_io_size", conf->min_io_size, errp) &&
           check_multiple(conf, "opt_io_size", conf->opt_io_size, errp) &&
           check_multiple(conf, "discard_granularity", conf->discard_granularity, errp);
}

bool block_conf_attach(struct block_conf *conf, struct device *dev, struct error **errp)
{
    if (!conf->drive || !conf->drive[0]) {
        error_set(errp, "%s: drive property not set", dev->type->name);
        error_add_hint(errp, "Use -drive if=none,id=ID,… or -blockdev node-name=ID,… and "
                             "drive=ID.");
        return false;
    }
    if (!check_sizes(conf, dev, errp)) {
        return false;
    }
    autofree char *text = xasprintf("%s", dev->id ? dev->id : dev->type->name);
    conf->backend = backend_attach(conf->drive, text, !backend_text_is_readonly(conf->drive),
                                   conf->share_rw, errp);
    if (!conf->backend) {
        return false;
    }
    backend_set_owner(conf->backend, dev);
    if (!backend_set_error_policy(conf->backend, conf->rerror, conf->werror, errp)) {
        block_conf_detach(conf);
        return false;
    }
    if (conf->write_cache != ON_OFF_AUTO_AUTO) {
        backend_set_write_cache(conf->backend, conf->write_cache == ON_OFF_AUTO_ON);
    }
    const char *name = backend_name(conf->backend);
    conf->name = xstrdup(name[0] ? name : text);
    return true;
}

void block_conf_detach(struct block_conf *conf)
{
    bool held = machine_lock_held();

    if (held) {
        machine_unlock();
    }
    backend_detach(conf->backend);
    if (held) {
        machine_lock();
    }
    conf->backend = NULL;
    free(conf->name);
    conf->name = NULL;
}
