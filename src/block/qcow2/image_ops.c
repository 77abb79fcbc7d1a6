/* SPDX-License-Identifier: MIT */
/* What image tools can do with a qcow2 image: the table of it. */
#include "block/qcow2/amend.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/create.h"
#include "block/qcow2/snapshot_ops.h"

const struct block_image_ops qcow2_image_ops = {
    .create_options = qcow2_create_option_list,
    .check_create = qcow2_check_create,
    .create = qcow2_create,
    .measure = qcow2_measure,
    .info = qcow2_info,
    .check = qcow2_check,
    .amend = qcow2_amend,
    .change_backing = qcow2_change_backing,
    .make_empty = qcow2_make_empty,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .snapshot_load = qcow2_snapshot_load,
    .can_keep_bitmap = qcow2_can_keep_bitmap,
    .keep_bitmaps = qcow2_keep_bitmaps,
};
