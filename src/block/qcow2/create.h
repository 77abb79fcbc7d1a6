/* SPDX-License-Identifier: MIT */
/*
 * What `create -o` says about a qcow2 image, and where a new image has what:
 *
 *   | header | refcount table | refcount blocks | L1 | L2 tables | data |
 *                                                      with preallocation
 *
 * For create.c, and for measure.c, which only counts.
 */
#ifndef FERRY_BLOCK_QCOW2_CREATE_H
#define FERRY_BLOCK_QCOW2_CREATE_H

#include "block/qcow2/qcow2.h"

struct qcow2_create_options {
    uint64_t size; /* bytes, a multiple of 512 */
    unsigned version;
    unsigned cluster_bits, refcount_order;
    bool extended_l2, lazy_refcounts, data_file_raw;
    enum qcow2_compression compression;
    enum block_prealloc prealloc;
    char *backing_file, *backing_format, *data_file; /* or NULL */
};

/* Takes them out of opts. qcow2_create_options_free() also after an error. */
bool qcow2_parse_create_options(struct options *opts, struct qcow2_create_options *o,
                                struct error **errp);
void qcow2_create_options_free(struct qcow2_create_options *o);
/* The list that help prints. */
extern const struct block_create_option qcow2_create_option_list[];

/* Options that amend knows as well. The value becomes that of `key` if it is there. */
bool qcow2_parse_version(struct options *opts, unsigned *version, struct error **errp);
/* What the header has for data_file=: a plain name, which is the only one that opening takes; NULL and
 * an error if it is none. The caller frees it. */
char *qcow2_data_file_name(const char *name, struct error **errp);
bool qcow2_parse_refcount_bits(struct options *opts, unsigned *order, struct error **errp);

struct qcow2_layout {
    uint32_t cluster_size;
    unsigned l2_entry_size; /* bytes */
    uint64_t l2_entries;    /* in a table */
    uint64_t l1_entries, l1_clusters;
    uint64_t l2_tables, data_clusters; /* that are there from the start */
    uint64_t reftable_clusters, refblocks;
    uint64_t clusters; /* all of them, from the header on */
    /* bytes */
    uint64_t reftable_offset, refblock_offset, l1_offset, l2_offset, data_offset, end;
};

/* False: the L1 table would be too large for the format with these options. */
bool qcow2_plan_layout(const struct qcow2_create_options *o, struct qcow2_layout *layout);

#endif
