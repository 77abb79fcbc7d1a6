/* SPDX-License-Identifier: MIT */
/* The options of nodes against the tables of their drivers. Main loop. */
#ifndef FERRY_NODE_OPTION_H
#define FERRY_NODE_OPTION_H

#include "base/options.h"
#include "block/driver.h"

/* Before a node is opened, or anything below it: that the driver knows all options, and that what was
 * written in JSON is of the right type. Numbers and truth values that are still text get their types if
 * options_wants_types(). */
bool node_options_check(const struct block_driver *driver, struct options *opts,
                        struct error **errp);
/* It changes what is read, or from where. */
bool node_option_is_strong(const struct block_driver *driver, const char *key);

#endif
