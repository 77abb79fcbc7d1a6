/* SPDX-License-Identifier: MIT */
/* What image tools can do with a qcow2 image: the table of it. */
#include "block/qcow2/create.h"

const struct block_image_ops qcow2_image_ops = {
    .create_options = qcow2_create_option_list,
    .create = qcow2_create,
    .check = qcow2_check,
};
