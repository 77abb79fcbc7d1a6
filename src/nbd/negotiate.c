/* SPDX-License-Identifier: MIT */
/*
 * Fixed newstyle negotiation: the client sends options until it takes an export (NBD_OPT_GO,
 * NBD_OPT_EXPORT_NAME) or leaves. An option that is malformed but whose end can be found gets an
 * error reply; a client that does not keep to the protocol is disconnected.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "nbd/connection.h"

#define MESSAGE_MAX  256        /* bytes of an error's text */
#define SKIP_MAX     (32 * MiB) /* of an option that is too long to be looked at */
#define NAME_IN_TEXT 80         /* bytes of a client's string in a message to it */
#define PREFERRED    4096       /* block size, bytes */

/* What becomes of the connection after an option; negative errno: it ends. */
#define OPTION_NEXT  0
#define OPTION_TAKEN 1 /* transmission begins */

/* ---- replies --------------------------------------------------------------------------------- */

int nbd_co_option_reply(struct nbd_connection *conn, uint32_t option, uint32_t type,
                        const void *data, size_t size)
{
    uint8_t head[NBD_REPLY_HEAD_SIZE];

    store_be64(head, NBD_REPLY_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, type);
    store_be32(head + 16, (uint32_t)size);
    int ret = nbd_channel_co_write(&conn->channel, head, sizeof(head));
    return ret < 0 || !size ? ret : nbd_channel_co_write(&conn->channel, data, size);
}

int nbd_co_option_error(struct nbd_connection *conn, uint32_t option, uint32_t type,
                        const char *fmt, ...)
{
    char text[MESSAGE_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    nbd_say(conn, "option %u: %s", option, text);
    return nbd_co_option_reply(conn, option, type, text, strlen(text));
}

/* ---- NBD_OPT_LIST ---------------------------------------------------------------------------- */

static int co_list_one(struct nbd_connection *conn, const struct nbd_export *export)
{
    size_t name = strlen(export->name), description = strlen(export->description);
    autofree uint8_t *data = xmalloc(4 + name + description);

    store_be32(data, (uint32_t)name);
    memcpy(data + 4, export->name, name);
    memcpy(data + 4 + name, export->description, description);
    return nbd_co_option_reply(conn, NBD_OPT_LIST, NBD_REP_SERVER, data, 4 + name + description);
}

static int co_list(struct nbd_connection *conn, uint32_t length)
{
    if (length) {
        return nbd_co_option_error(conn, NBD_OPT_LIST, NBD_REP_ERR_INVALID,
                                   "NBD_OPT_LIST takes no data");
    }
    struct nbd_export *export = nbd_export_next(conn->server, NULL);
    while (export) {
        int ret = co_list_one(conn, export);
        if (ret < 0) {
            nbd_export_unref(export);
            return ret;
        }
        export = nbd_export_next(conn->server, export);
    }
    return nbd_co_option_reply(conn, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

/* ---- taking an export ------------------------------------------------------------------------ */

static unsigned transmission_flags(const struct nbd_connection *conn)
{
    return nbd_export_flags(conn->export) | (conn->is_structured ? NBD_FLAG_SEND_DF : 0);
}

/* Takes the caller's reference. False: it has been removed from the server meanwhile. */
static bool take_export(struct nbd_connection *conn, struct nbd_export *export)
{
    const struct nbd_contexts *contexts = &conn->contexts;

    if (!nbd_export_attach(export, conn)) {
        nbd_export_unref(export);
        return false;
    }
    /* Contexts hold for the export that they were chosen for. */
    if (contexts->count && (contexts->export_length != strlen(export->name) ||
                            memcmp(contexts->export_name, export->name, contexts->export_length))) {
        nbd_contexts_clear(&conn->contexts);
    }
    nbd_say(conn, "uses export '%s'", export->name);
    return true;
}

static int co_export_name(struct nbd_connection *conn, const uint8_t *name, uint32_t length)
{
    uint8_t reply[8 + 2 + NBD_EXPORT_NAME_ZEROES] = {0};
    struct nbd_export *export = nbd_export_find(conn->server, (const char *)name, length);

    if (!export) {
        nbd_say(conn, "asks for an export that does not exist");
        return -ENOENT;
    }
    if (!take_export(conn, export)) {
        return -ENOENT;
    }
    store_be64(reply, export->size);
    store_be16(reply + 8, (uint16_t)transmission_flags(conn));
    int ret = nbd_channel_co_write(&conn->channel, reply,
                                   sizeof(reply) - (conn->no_zeroes ? NBD_EXPORT_NAME_ZEROES : 0));
    return ret < 0 ? ret : OPTION_TAKEN;
}

/* NBD_OPT_INFO and NBD_OPT_GO: length of the name, the name, number of requests, the requests. */
struct info_request {
    const char *name;
    uint32_t name_length;
    bool name_asked, description_asked, block_size_asked;
};

static bool parse_info(const uint8_t *data, uint32_t length, struct info_request *info)
{
    *info = (struct info_request){0};
    if (length < 6) {
        return false;
    }
    info->name_length = load_be32(data);
    if (info->name_length > length - 6) {
        return false;
    }
    info->name = (const char *)data + 4;
    const uint8_t *at = data + 4 + info->name_length;
    unsigned count = load_be16(at);
    if (length != 6 + info->name_length + 2 * count) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        at += 2;
        switch (load_be16(at)) {
        case NBD_INFO_NAME:
            info->name_asked = true;
            break;
        case NBD_INFO_DESCRIPTION:
            info->description_asked = true;
            break;
        case NBD_INFO_BLOCK_SIZE:
            info->block_size_asked = true;
            break;
        default:
            break; /* those that the server does not know are left out */
        }
    }
    return true;
}

static int co_send_info(struct nbd_connection *conn, uint32_t option, unsigned type,
                        const void *data, size_t size)
{
    autofree uint8_t *info = xmalloc(2 + size);

    store_be16(info, (uint16_t)type);
    memcpy(info + 2, data, size);
    return nbd_co_option_reply(conn, option, NBD_REP_INFO, info, 2 + size);
}

static int co_send_infos(struct nbd_connection *conn, uint32_t option,
                         const struct nbd_export *export, const struct info_request *asked)
{
    uint8_t sizes[12], size_and_flags[10];
    int ret = 0;

    if (asked->name_asked) {
        ret = co_send_info(conn, option, NBD_INFO_NAME, export->name, strlen(export->name));
    }
    if (ret == 0 && asked->description_asked && *export->description) {
        ret = co_send_info(conn, option, NBD_INFO_DESCRIPTION, export->description,
                           strlen(export->description));
    }
    /* Every request is served whatever its alignment. Who asks and will obey learns what the image
     * takes as it is. */
    store_be32(sizes, asked->block_size_asked ? export->alignment : 1);
    store_be32(sizes + 4, MAX(PREFERRED, export->alignment));
    store_be32(sizes + 8, NBD_MAX_PAYLOAD);
    if (ret == 0) {
        ret = co_send_info(conn, option, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
    }
    unsigned flags = nbd_export_flags(export) | (conn->is_structured ? NBD_FLAG_SEND_DF : 0);
    store_be64(size_and_flags, export->size);
    store_be16(size_and_flags + 8, (uint16_t)flags);
    if (ret == 0) {
        ret = co_send_info(conn, option, NBD_INFO_EXPORT, size_and_flags, sizeof(size_and_flags));
    }
    return ret < 0 ? ret : nbd_co_option_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

static int co_info(struct nbd_connection *conn, uint32_t option, const uint8_t *data,
                   uint32_t length)
{
    struct info_request asked;

    if (!parse_info(data, length, &asked)) {
        return nbd_co_option_error(conn, option, NBD_REP_ERR_INVALID, "malformed option");
    }
    struct nbd_export *export = nbd_export_find(conn->server, asked.name, asked.name_length);
    if (!export) {
        return nbd_co_option_error(conn, option, NBD_REP_ERR_UNKNOWN, "export '%.*s' not present",
                                   (int)MIN(asked.name_length, NAME_IN_TEXT), asked.name);
    }
    int ret = co_send_infos(conn, option, export, &asked);
    if (ret < 0 || option == NBD_OPT_INFO) {
        nbd_export_unref(export);
        return ret;
    }
    return take_export(conn, export) ? OPTION_TAKEN : -ENOENT;
}

/* ---- the others ------------------------------------------------------------------------------ */

static int co_start_tls(struct nbd_connection *conn, uint32_t length)
{
    const struct nbd_server_config *config = &conn->server->config;

    if (length) {
        return nbd_co_option_error(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID,
                                   "NBD_OPT_STARTTLS takes no data");
    }
    if (conn->channel.tls) {
        return nbd_co_option_error(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID,
                                   "TLS has been started already");
    }
    if (!config->tls) {
        return nbd_co_option_error(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY,
                                   "TLS not configured");
    }
    int ret = nbd_co_option_reply(conn, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    if (ret == 0) {
        ret = nbd_channel_co_start_tls(&conn->channel, config->tls);
    }
    if (ret < 0) {
        nbd_say(conn, "TLS handshake failed");
        return ret;
    }
    if (config->authorize) {
        autofree char *name = nbd_tls_peer_name(conn->channel.tls);
        if (!config->authorize(config->opaque, name)) {
            nbd_say(conn, "client '%s' is not authorized", name ? name : "");
            return -EACCES;
        }
    }
    /* All that was agreed on in the clear is void. */
    conn->is_structured = false;
    nbd_contexts_clear(&conn->contexts);
    return OPTION_NEXT;
}

static int co_structured_reply(struct nbd_connection *conn, uint32_t length)
{
    if (length) {
        return nbd_co_option_error(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
                                   "NBD_OPT_STRUCTURED_REPLY takes no data");
    }
    if (conn->is_structured) {
        return nbd_co_option_error(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
                                   "structured replies have been agreed on already");
    }
    conn->is_structured = true;
    return nbd_co_option_reply(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
}

static int co_perform_option(struct nbd_connection *conn, uint32_t option, const uint8_t *data,
                             uint32_t length)
{
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return co_export_name(conn, data, length);
    case NBD_OPT_LIST:
        return co_list(conn, length);
    case NBD_OPT_STARTTLS:
        return co_start_tls(conn, length);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return co_info(conn, option, data, length);
    case NBD_OPT_STRUCTURED_REPLY:
        return co_structured_reply(conn, length);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return nbd_co_option_meta(conn, option, data, length);
    default:
        return nbd_co_option_error(conn, option, NBD_REP_ERR_UNSUP, "unsupported option %u",
                                   option);
    }
}

/* ---- the order of it ------------------------------------------------------------------------- */

/* An option whose data is not looked at. */
static int co_refuse(struct nbd_connection *conn, uint32_t option, uint32_t length, uint32_t type,
                     const char *why)
{
    if (option == NBD_OPT_EXPORT_NAME || length > SKIP_MAX) {
        nbd_say(conn, "option %u with %u bytes: %s", option, length, why);
        return -EPROTO; /* it knows no error reply, or there is too much to skip */
    }
    int ret = nbd_channel_co_skip(&conn->channel, length);
    return ret < 0 ? ret : nbd_co_option_error(conn, option, type, "%s", why);
}

static int co_next_option(struct nbd_connection *conn)
{
    uint8_t head[NBD_OPTION_HEAD_SIZE];
    int ret = nbd_channel_co_read(&conn->channel, head, sizeof(head));

    if (ret < 0) {
        return ret;
    }
    uint32_t option = load_be32(head + 8), length = load_be32(head + 12);
    if (load_be64(head) != NBD_OPTION_MAGIC || !conn->options_left--) {
        nbd_say(conn, "does not speak NBD, or asks for ever");
        return -EPROTO;
    }
    if (!conn->is_fixed_newstyle && option != NBD_OPT_EXPORT_NAME) {
        return -EPROTO; /* such a client knows no replies */
    }
    if (option == NBD_OPT_ABORT) {
        /* It may have gone already. */
        nbd_co_option_reply(conn, option, NBD_REP_ACK, NULL, 0);
        return -ECONNABORTED;
    }
    if (conn->server->config.tls && !conn->channel.tls && option != NBD_OPT_STARTTLS) {
        return co_refuse(conn, option, length, NBD_REP_ERR_TLS_REQD,
                         "this server wants TLS before anything else");
    }
    if (length > (option == NBD_OPT_EXPORT_NAME ? NBD_STRING_MAX : NBD_OPTION_MAX)) {
        return co_refuse(conn, option, length, NBD_REP_ERR_TOO_BIG, "option is too long");
    }
    autofree uint8_t *data = xmalloc(MAX(length, 1u));
    ret = nbd_channel_co_read(&conn->channel, data, length);
    return ret < 0 ? ret : co_perform_option(conn, option, data, length);
}

bool nbd_co_negotiate(struct nbd_connection *conn)
{
    uint8_t greeting[NBD_GREETING_SIZE], flags[4];
    int ret;

    store_be64(greeting, NBD_MAGIC);
    store_be64(greeting + 8, NBD_OPTION_MAGIC);
    store_be16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    if (nbd_channel_co_write(&conn->channel, greeting, sizeof(greeting)) < 0 ||
        nbd_channel_co_read(&conn->channel, flags, sizeof(flags)) < 0) {
        return false;
    }
    uint32_t client_flags = load_be32(flags);
    if (client_flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        nbd_say(conn, "unknown client flags 0x%x", client_flags);
        return false;
    }
    conn->is_fixed_newstyle = client_flags & NBD_FLAG_FIXED_NEWSTYLE;
    conn->no_zeroes = client_flags & NBD_FLAG_NO_ZEROES;
    conn->options_left = NBD_OPTIONS_MAX;
    do {
        ret = co_next_option(conn);
    } while (ret == OPTION_NEXT);
    return ret == OPTION_TAKEN;
}
