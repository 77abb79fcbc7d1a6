/* SPDX-License-Identifier: MIT */
/* -L: the exports of another server, by libnbd. See nbd_tool.h. */
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "nbd/protocol.h"
#include "tools/nbd/nbd_tool.h"

#define DEFAULT_HOST "localhost"
#define DEFAULT_PORT "10809"

struct found {
    char **names, **descriptions;
    size_t count;
};

static int note(void *opaque, const char *name, const char *description)
{
    struct found *found = opaque;

    found->names = xreallocarray(found->names, found->count + 1, sizeof(char *));
    found->descriptions = xreallocarray(found->descriptions, found->count + 1, sizeof(char *));
    found->names[found->count] = xstrdup(name);
    found->descriptions[found->count++] = xstrdup(description);
    return 0;
}

static void free_found(struct found *found)
{
    for (size_t i = 0; i < found->count; i++) {
        free(found->names[i]);
        free(found->descriptions[i]);
    }
    free(found->names);
    free(found->descriptions);
}

static int note_context(void *opaque, const char *name)
{
    return note(opaque, name, "");
}

/* ---- printing -------------------------------------------------------------------------------- */

/* In the order of their bits in the transmission flags, of which the first says that there are any. */
static const struct {
    unsigned bit;
    int (*test)(struct nbd_handle *nbd);
    const char *name;
} flags[] = {
    {NBD_FLAG_READ_ONLY, nbd_is_read_only, "readonly"},
    {NBD_FLAG_SEND_FLUSH, nbd_can_flush, "flush"},
    {NBD_FLAG_SEND_FUA, nbd_can_fua, "fua"},
    {NBD_FLAG_ROTATIONAL, nbd_is_rotational, "rotational"},
    {NBD_FLAG_SEND_TRIM, nbd_can_trim, "trim"},
    {NBD_FLAG_SEND_WRITE_ZEROES, nbd_can_zero, "zeroes"},
    {NBD_FLAG_SEND_DF, nbd_can_df, "df"},
    {NBD_FLAG_CAN_MULTI_CONN, nbd_can_multi_conn, "multi"},
    {NBD_FLAG_SEND_CACHE, nbd_can_cache, "cache"},
    {NBD_FLAG_SEND_FAST_ZERO, nbd_can_fast_zero, "fast-zero"},
};

static void print_flags(struct nbd_handle *nbd)
{
    unsigned all = NBD_FLAG_HAS_FLAGS;
    char names[256] = "";

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (flags[i].test(nbd) == 1) {
            all |= flags[i].bit;
            strcat(strcat(names, " "), flags[i].name);
        }
    }
    printf("  flags: 0x%x (%s )\n", all, names);
}

static void print_size(struct nbd_handle *nbd, const char *label, int type)
{
    int64_t size = nbd_get_block_size(nbd, type);

    if (size > 0) {
        printf("  %s: %" PRIi64 "\n", label, size);
    }
}

static void print_contexts(struct nbd_handle *nbd)
{
    struct found contexts = {0};

    if (nbd_opt_list_meta_context(nbd, (nbd_context_callback){.callback = note_context,
                                                              .user_data = &contexts}) > 0) {
        printf("  available meta contexts: %zu\n", contexts.count);
        for (size_t i = 0; i < contexts.count; i++) {
            printf("   %s\n", contexts.names[i]);
        }
    }
    free_found(&contexts);
}

static void print_export(struct nbd_handle *nbd, const char *name, const char *description)
{
    printf(" export: '%s'\n", name);
    if (*description) {
        printf("  description: %s\n", description);
    }
    if (nbd_set_export_name(nbd, name) < 0 || nbd_opt_info(nbd) < 0) {
        printf("  (the server tells nothing about it: %s)\n", nbd_get_error());
        return;
    }
    printf("  size:  %" PRIi64 "\n", nbd_get_size(nbd));
    print_flags(nbd);
    print_size(nbd, "min block", LIBNBD_SIZE_MINIMUM);
    print_size(nbd, "opt block", LIBNBD_SIZE_PREFERRED);
    print_size(nbd, "max block", LIBNBD_SIZE_MAXIMUM);
    print_contexts(nbd);
}

/* ---- connecting ------------------------------------------------------------------------------ */

static const char *host_of(const struct nbd_args *args)
{
    return args->bind_address ? args->bind_address : DEFAULT_HOST;
}

/* libnbd takes the name of a certificate from what it connects to; without one, it does not even
 * look at who signed it. */
static bool can_verify(const struct nbd_args *args, struct error **errp)
{
    if (args->socket_path) {
        error_set(errp,
                  "TLS credentials '%s': this libnbd checks no certificates over unix sockets; "
                  "list over TCP (-b, -p), or give the credentials verify-peer=off",
                  args->tls_creds);
        return false;
    }
    if (args->tls_hostname && strcmp(args->tls_hostname, host_of(args))) {
        error_set(errp,
                  "--tls-hostname=%s is not supported by this libnbd, which checks the name that "
                  "it connects to; give -b %s",
                  args->tls_hostname, args->tls_hostname);
        return false;
    }
    return true;
}

static bool set_up_tls(struct nbd_handle *nbd, const struct nbd_args *args, struct error **errp)
{
    for (size_t i = 0; i < args->objects.count; i++) {
        if (!nbd_objects_add(args->objects.items[i], errp)) {
            return false;
        }
    }
    if (!args->tls_creds) {
        return true;
    }
    const struct nbd_tls_creds *creds = nbd_objects_find_creds(args->tls_creds, false, errp);
    if (!creds) {
        return false;
    }
    if (nbd_tls_creds_verify_names(creds) && !can_verify(args, errp)) {
        return false;
    }
    autofree char *keys = xasprintf("%s/keys.psk", nbd_tls_creds_dir(creds));
    const char *username = nbd_tls_creds_username(creds);
    if (nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE) < 0 ||
        (nbd_tls_creds_is_psk(creds)
             ? nbd_set_tls_psk_file(nbd, keys) < 0 ||
                   nbd_set_tls_username(nbd, username ? username : "qemu") < 0
             : nbd_set_tls_certificates(nbd, nbd_tls_creds_dir(creds)) < 0 ||
                   nbd_set_tls_verify_peer(nbd, nbd_tls_creds_verify_peer(creds)) < 0)) {
        error_set(errp, "TLS credentials '%s': %s", args->tls_creds, nbd_get_error());
        return false;
    }
    return true;
}

static bool connect_to(struct nbd_handle *nbd, const struct nbd_args *args, struct error **errp)
{
    const char *host = host_of(args);
    int ret;

    if (!set_up_tls(nbd, args, errp)) {
        return false;
    }
    nbd_set_opt_mode(nbd, true);
    nbd_set_full_info(nbd, true);
    ret = args->socket_path ? nbd_connect_unix(nbd, args->socket_path)
                            : nbd_connect_tcp(nbd, host, args->port ? args->port : DEFAULT_PORT);
    if (ret < 0) {
        error_set(errp, "Failed to connect to '%s': %s",
                  args->socket_path ? args->socket_path : host, nbd_get_error());
        return false;
    }
    return true;
}

static bool print_all(struct nbd_handle *nbd, struct error **errp)
{
    struct found found = {0};
    bool ok = nbd_opt_list(nbd, (nbd_list_callback){.callback = note, .user_data = &found}) >= 0;

    if (ok) {
        printf("exports available: %zu\n", found.count);
        for (size_t i = 0; i < found.count; i++) {
            print_export(nbd, found.names[i], found.descriptions[i]);
        }
    } else {
        error_set(errp, "The server does not list its exports: %s", nbd_get_error());
    }
    free_found(&found);
    return ok;
}

bool nbd_list(const struct nbd_args *args, struct error **errp)
{
    struct nbd_handle *nbd = nbd_create();

    if (!nbd) {
        error_set(errp, "libnbd: %s", nbd_get_error());
        return false;
    }
    bool ok = connect_to(nbd, args, errp) && print_all(nbd, errp);
    nbd_close(nbd);
    nbd_objects_free();
    return ok;
}
