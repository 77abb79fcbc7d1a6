/* SPDX-License-Identifier: MIT */
/* Credentials of the nbd driver. See nbd_creds.h. */
#include "block/nbd_creds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

static struct nbd_creds *first; /* main loop */

void nbd_creds_free(struct nbd_creds *creds)
{
    if (!creds) {
        return;
    }
    free(creds->id);
    free(creds->dir);
    free(creds->username);
    free(creds);
}

static char *copy(const char *text)
{
    return text ? xstrdup(text) : NULL;
}

struct nbd_creds *nbd_creds_copy(const struct nbd_creds *creds)
{
    struct nbd_creds *new = xnew(struct nbd_creds);

    *new = (struct nbd_creds){
        .id = xstrdup(creds->id),
        .dir = xstrdup(creds->dir),
        .is_psk = creds->is_psk,
        .username = copy(creds->username),
        .verify_peer = creds->verify_peer,
    };
    return new;
}

static bool check_file(const char *dir, const char *name, bool required, struct error **errp)
{
    autofree char *path = xasprintf("%s/%s", dir, name);

    if (access(path, R_OK) == 0 || (errno == ENOENT && !required)) {
        return true;
    }
    error_set_errno(errp, errno, "Unable to access credentials %s", path);
    return false;
}

/* Said here rather than when a server wants them, which may be much later. */
static bool check_files(const struct nbd_creds *creds, struct error **errp)
{
    if (creds->is_psk) {
        return check_file(creds->dir, "keys.psk", true, errp);
    }
    return check_file(creds->dir, "ca-cert.pem", true, errp) &&
           check_file(creds->dir, "ca-crl.pem", false, errp) &&
           check_file(creds->dir, "client-cert.pem", false, errp) &&
           check_file(creds->dir, "client-key.pem", false, errp);
}

bool nbd_creds_add(const char *type, struct options *opts, struct error **errp)
{
    static const char *const endpoints[] = {"client", "server", NULL};
    const char *id = options_get(opts, "id"), *dir = options_get(opts, "dir");
    struct nbd_creds *creds;
    int endpoint = 0;

    if (!id || !dir) {
        error_set(errp, "object %s: Parameter '%s' is missing", type, id ? "dir" : "id");
        return false;
    }
    if (nbd_creds_find(id)) {
        error_set(errp, "Duplicate ID '%s' for object", id);
        return false;
    }
    if (!options_get_enum(opts, "endpoint", endpoints, &endpoint, errp)) {
        return false;
    }
    if (endpoint != 0) {
        error_set(errp, "object %s,id=%s: Expecting TLS credentials with a client endpoint", type,
                  id);
        return false;
    }
    creds = xnew(struct nbd_creds);
    creds->is_psk = !strcmp(type, "tls-creds-psk");
    creds->verify_peer = true;
    creds->id = xstrdup(id);
    creds->dir = xstrdup(dir);
    if (creds->is_psk) {
        creds->username = copy(options_get(opts, "username"));
    }
    if ((!creds->is_psk && !options_get_bool(opts, "verify-peer", &creds->verify_peer, errp)) ||
        !check_files(creds, errp)) {
        nbd_creds_free(creds);
        return false;
    }
    creds->next = first;
    first = creds;
    return true;
}

void nbd_creds_remove(const char *id)
{
    for (struct nbd_creds **p = &first; *p; p = &(*p)->next) {
        if (!strcmp((*p)->id, id)) {
            struct nbd_creds *creds = *p;
            *p = creds->next;
            nbd_creds_free(creds);
            return;
        }
    }
}

const struct nbd_creds *nbd_creds_find(const char *id)
{
    const struct nbd_creds *creds = first;

    while (creds && strcmp(creds->id, id)) {
        creds = creds->next;
    }
    return creds;
}
