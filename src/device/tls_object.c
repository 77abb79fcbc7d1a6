/* SPDX-License-Identifier: MIT */
/* The tls-creds objects. See tls_object.h. */
#include "device/tls_object.h"

#include "base/options.h"
#include "block/nbd_creds.h"

struct tls_object {
    struct device dev;
    /* constant after realize */
    char *dir, *endpoint, *username;
    bool verify_peer;
};

static bool tls_object_realize(struct device *dev, struct error **errp)
{
    const struct tls_object *object = (const struct tls_object *)dev;
    struct options *opts = options_new();

    options_set(opts, "id", dev->id ? dev->id : "");
    if (object->dir) {
        options_set(opts, "dir", object->dir);
    }
    options_set(opts, "endpoint", object->endpoint);
    if (object->username) {
        options_set(opts, "username", object->username);
    }
    options_set(opts, "verify-peer", object->verify_peer ? "on" : "off");
    bool ok = nbd_creds_add(dev->type->name, opts, errp);
    options_free(opts);
    return ok;
}

static void tls_object_unrealize(struct device *dev)
{
    nbd_creds_remove(dev->id ? dev->id : "");
}

#define COMMON                                                                                     \
    PROPERTY_STRING("dir", struct tls_object, dir, NULL, "folder that the credentials are in"),    \
        PROPERTY_STRING("endpoint", struct tls_object, endpoint, "client",                         \
                        "client: this build has no server that uses them")

static const struct property x509_props[] = {
    COMMON,
    PROPERTY_BOOL("verify-peer", struct tls_object, verify_peer, true,
                  "whether the server's certificate is checked"),
    PROPERTY_END,
};

static const struct property psk_props[] = {
    COMMON,
    PROPERTY_STRING("username", struct tls_object, username, "qemu", "which key of keys.psk"),
    PROPERTY_END,
};

const struct device_type tls_creds_x509_type = {
    .name = "tls-creds-x509",
    .description = "X.509 certificates for TLS",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct tls_object),
    .is_object = true,
    .props = x509_props,
    .realize = tls_object_realize,
    .unrealize = tls_object_unrealize,
};

const struct device_type tls_creds_psk_type = {
    .name = "tls-creds-psk",
    .description = "pre-shared keys for TLS",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct tls_object),
    .is_object = true,
    .props = psk_props,
    .realize = tls_object_realize,
    .unrealize = tls_object_unrealize,
};
