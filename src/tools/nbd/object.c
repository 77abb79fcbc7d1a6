/* SPDX-License-Identifier: MIT */
/* --object: tls-creds-x509, tls-creds-psk, authz-simple. See nbd_tool.h. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/id.h"
#include "base/options.h"
#include "tools/common/tool.h"
#include "tools/nbd/nbd_tool.h"

struct nbd_authz {
    char *identity;
};

struct object {
    char *id;
    struct nbd_tls_creds *creds; /* or NULL */
    struct nbd_authz authz;      /* identity NULL: it is none */
    struct object *next;
};

static struct object *objects;

static struct object *find(const char *id)
{
    struct object *object = objects;

    while (object && strcmp(object->id, id)) {
        object = object->next;
    }
    return object;
}

static void free_object(struct object *object)
{
    nbd_tls_creds_free(object->creds);
    free(object->authz.identity);
    free(object->id);
    free(object);
}

static bool fill_authz(struct object *object, struct options *opts, struct error **errp)
{
    const char *identity = options_get(opts, "identity");

    if (!identity) {
        error_set(errp, "object authz-simple: identity= with a distinguished name is missing");
        return false;
    }
    object->authz.identity = xstrdup(identity);
    return options_check_used(opts, "object authz-simple", errp);
}

static bool fill(struct object *object, const char *type, struct options *opts, struct error **errp)
{
    if (!strcmp(type, "tls-creds-x509") || !strcmp(type, "tls-creds-psk")) {
        object->creds = nbd_tls_creds_new(type, opts, errp);
        return object->creds;
    }
    if (!strcmp(type, "authz-simple")) {
        return fill_authz(object, opts, errp);
    }
    error_set(errp,
              "invalid object type: %s; ferry-nbd has tls-creds-x509, tls-creds-psk, authz-simple "
              "and throttle-group",
              type);
    return false;
}

static bool add(struct options *opts, struct error **errp)
{
    const char *type = options_get(opts, "qom-type"), *id = options_get(opts, "id");

    if (!type || !id) {
        error_set(errp, "--object: Parameter '%s' is missing", type ? "id" : "qom-type");
        return false;
    }
    if (!id_is_wellformed(id)) {
        error_set(errp, "--object: Parameter 'id' expects an identifier, not '%s'", id);
        return false;
    }
    if (find(id)) {
        error_set(errp, "--object: there is an object with id '%s' already", id);
        return false;
    }
    struct object *object = xnew(struct object);
    object->id = xstrdup(id);
    if (!fill(object, type, opts, errp)) {
        free_object(object);
        return false;
    }
    object->next = objects;
    objects = object;
    return true;
}

/* Objects that image options refer to are the block layer's. */
static bool is_for_images(struct options *opts)
{
    const char *type = options_get(opts, "qom-type");

    return type && !strcmp(type, "throttle-group");
}

bool nbd_objects_add(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "qom-type", errp);
    bool ok = opts && (is_for_images(opts) ? tool_add_object(text, errp) : add(opts, errp));

    options_free(opts);
    return ok;
}

void nbd_objects_free(void)
{
    while (objects) {
        struct object *next = objects->next;
        free_object(objects);
        objects = next;
    }
}

const struct nbd_tls_creds *nbd_objects_find_creds(const char *id, bool for_server,
                                                   struct error **errp)
{
    const struct object *object = find(id);

    if (!object) {
        error_set(errp,
                  "No TLS credentials with id '%s'; make them with --object tls-creds-x509,"
                  "id=%s,dir=…",
                  id, id);
        return NULL;
    }
    if (!object->creds) {
        error_set(errp, "Object with id '%s' is not TLS credentials", id);
        return NULL;
    }
    if (nbd_tls_creds_is_server(object->creds) != for_server) {
        error_set(errp, "Expecting TLS credentials with a %s endpoint: '%s' needs endpoint=%s",
                  for_server ? "server" : "client", id, for_server ? "server" : "client");
        return NULL;
    }
    return object->creds;
}

const struct nbd_authz *nbd_objects_find_authz(const char *id, struct error **errp)
{
    const struct object *object = find(id);

    if (!object || !object->authz.identity) {
        error_set(errp,
                  "No authorization object with id '%s'; make it with --object authz-simple,"
                  "id=%s,identity=…",
                  id, id);
        return NULL;
    }
    return &object->authz;
}

bool nbd_authz_allows(const struct nbd_authz *authz, const char *name)
{
    return name && !strcmp(authz->identity, name);
}
