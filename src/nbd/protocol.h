/* SPDX-License-Identifier: MIT */
/*
 * The NBD protocol's numbers (doc/proto.md of the NBD project; the sections are named as there).
 * All fields on the wire are big-endian.
 */
#ifndef FERRY_NBD_PROTOCOL_H
#define FERRY_NBD_PROTOCOL_H

#include <stdint.h>

#define NBD_DEFAULT_PORT 10809

/* ---- "Newstyle negotiation", "Fixed newstyle negotiation" ------------------------------------- */

#define NBD_MAGIC        UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REPLY_MAGIC  UINT64_C(0x0003e889045565a9)

#define NBD_FLAG_FIXED_NEWSTYLE 1u /* handshake flags; the client's are alike */
#define NBD_FLAG_NO_ZEROES      2u

#define NBD_GREETING_SIZE      18 /* bytes: two magics, handshake flags */
#define NBD_OPTION_HEAD_SIZE   16 /* magic, option, length */
#define NBD_REPLY_HEAD_SIZE    20 /* magic, option, type, length */
#define NBD_EXPORT_NAME_ZEROES 124

/* "Option types" */
enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

/* "Option reply types" */
#define NBD_REP_ACK          1u
#define NBD_REP_SERVER       2u
#define NBD_REP_INFO         3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR(n)       (UINT32_C(0x80000000) | (n))
#define NBD_REP_ERR_UNSUP    NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY   NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID  NBD_REP_ERR(3)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN  NBD_REP_ERR(6)
#define NBD_REP_ERR_TOO_BIG  NBD_REP_ERR(9)

#define NBD_INFO_EXPORT      0
#define NBD_INFO_NAME        1
#define NBD_INFO_DESCRIPTION 2
#define NBD_INFO_BLOCK_SIZE  3

#define NBD_STRING_MAX 4096 /* bytes of a name or a description: "Values", "String encoding" */

/* ---- "Transmission" --------------------------------------------------------------------------- */

/* "Transmission flags" */
#define NBD_FLAG_HAS_FLAGS         0x001u
#define NBD_FLAG_READ_ONLY         0x002u
#define NBD_FLAG_SEND_FLUSH        0x004u
#define NBD_FLAG_SEND_FUA          0x008u
#define NBD_FLAG_ROTATIONAL        0x010u
#define NBD_FLAG_SEND_TRIM         0x020u
#define NBD_FLAG_SEND_WRITE_ZEROES 0x040u
#define NBD_FLAG_SEND_DF           0x080u
#define NBD_FLAG_CAN_MULTI_CONN    0x100u
#define NBD_FLAG_SEND_CACHE        0x400u
#define NBD_FLAG_SEND_FAST_ZERO    0x800u

#define NBD_REQUEST_MAGIC    UINT32_C(0x25609513)
#define NBD_SIMPLE_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_MAGIC UINT32_C(0x668e33ef)

#define NBD_REQUEST_SIZE 28 /* bytes: magic, flags, type, cookie, offset, length */
#define NBD_SIMPLE_SIZE  16 /* magic, error, cookie */
#define NBD_CHUNK_SIZE   20 /* magic, flags, type, cookie, length of what follows */

/* "Request types" */
enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

/* "Command flags" */
#define NBD_CMD_FLAG_FUA       0x01u
#define NBD_CMD_FLAG_NO_HOLE   0x02u
#define NBD_CMD_FLAG_DF        0x04u
#define NBD_CMD_FLAG_REQ_ONE   0x08u
#define NBD_CMD_FLAG_FAST_ZERO 0x10u

/* "Structured reply types" */
#define NBD_CHUNK_DONE         0x0001u /* flag: the last one of a reply */
#define NBD_CHUNK_NONE         0u
#define NBD_CHUNK_OFFSET_DATA  1u      /* offset, data */
#define NBD_CHUNK_OFFSET_HOLE  2u      /* offset, length */
#define NBD_CHUNK_BLOCK_STATUS 5u      /* context, then extents: length, flags */
#define NBD_CHUNK_ERROR        0x8001u /* error, length of message, message */

/* "Error values" */
#define NBD_EPERM     1u
#define NBD_EIO       5u
#define NBD_ENOMEM    12u
#define NBD_EINVAL    22u
#define NBD_ENOSPC    28u
#define NBD_EOVERFLOW 75u
#define NBD_ENOTSUP   95u
#define NBD_ESHUTDOWN 108u

/* "Metadata querying": contexts' flags of an extent */
#define NBD_STATE_HOLE  1u /* base:allocation */
#define NBD_STATE_ZERO  2u
#define NBD_STATE_DIRTY 1u /* qemu:dirty-bitmap:NAME */

/* Ours: the largest request that carries or asks for data, as clients assume ("Block size
 * constraints"), and extents of one context in a reply. */
#define NBD_MAX_PAYLOAD (UINT32_C(32) << 20)
#define NBD_MAX_EXTENTS 2048u

#endif
