/* SPDX-License-Identifier: MIT */
#include "block/interrupt.h"

#include <sys/eventfd.h>

#include "block/node.h"

static int fd = -1;
static bool is_interrupted;

int block_interrupt_fd(void)
{
    if (fd < 0) {
        fd = eventfd(is_interrupted, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return fd;
}

bool block_is_interrupted(void)
{
    return is_interrupted;
}

/* Nodes that are being opened belong to nobody yet. */
static bool is_in_use(const struct block_node *node)
{
    for (const struct block_link *link = node->users; link; link = link->next_user) {
        if (!link->parent || is_in_use(link->parent)) {
            return true;
        }
    }
    return node->monitor_owned;
}

void block_interrupt(void)
{
    if (is_interrupted) {
        return;
    }
    is_interrupted = true;
    if (fd >= 0) {
        eventfd_write(fd, 1);
    }
    for (struct block_node *node = block_node_first(); node; node = node->next) {
        if (node->driver->interrupt && !is_in_use(node)) {
            node->driver->interrupt(node);
        }
    }
}
