/* SPDX-License-Identifier: MIT */
#include "nbd/tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

#define PSK_FILE "keys.psk"
/* As a base for X.509; PSK needs key exchanges that GnuTLS leaves out by default. */
#define PRIORITY     "NORMAL"
#define PRIORITY_PSK "+ECDHE-PSK:+DHE-PSK:+PSK"

struct nbd_tls_creds {
    char *dir, *username, *priority;
    bool is_psk, is_server, verify_peer;
    gnutls_certificate_credentials_t x509; /* of a server */
    gnutls_psk_server_credentials_t psk;   /* of a server */
};

struct nbd_tls {
    gnutls_session_t session;
    const struct nbd_tls_creds *creds;
};

/* ---- credentials ----------------------------------------------------------------------------- */

static bool check(int ret, const char *what, const char *path, struct error **errp)
{
    if (ret < 0) {
        error_set(errp, "%s '%s': %s", what, path, gnutls_strerror(ret));
        return false;
    }
    return true;
}

static bool file_is_there(const char *path)
{
    return access(path, R_OK) == 0;
}

static bool load_x509(struct nbd_tls_creds *creds, const char *password, struct error **errp)
{
    autofree char *ca = xasprintf("%s/ca-cert.pem", creds->dir);
    autofree char *crl = xasprintf("%s/ca-crl.pem", creds->dir);
    autofree char *cert = xasprintf("%s/server-cert.pem", creds->dir);
    autofree char *key = xasprintf("%s/server-key.pem", creds->dir);

    if (!check(gnutls_certificate_allocate_credentials(&creds->x509), "credentials in", creds->dir,
               errp) ||
        !check(gnutls_certificate_set_x509_trust_file(creds->x509, ca, GNUTLS_X509_FMT_PEM),
               "cannot load CA certificates from", ca, errp) ||
        !check(gnutls_certificate_set_x509_key_file2(creds->x509, cert, key, GNUTLS_X509_FMT_PEM,
                                                     password, 0),
               "cannot load the server's certificate and key from", cert, errp)) {
        return false;
    }
    return !file_is_there(crl) ||
           check(gnutls_certificate_set_x509_crl_file(creds->x509, crl, GNUTLS_X509_FMT_PEM),
                 "cannot load revoked certificates from", crl, errp);
}

static bool load_psk(struct nbd_tls_creds *creds, struct error **errp)
{
    autofree char *keys = xasprintf("%s/" PSK_FILE, creds->dir);

    if (!file_is_there(keys)) {
        error_set_errno(errp, errno, "cannot read the keys in '%s'", keys);
        return false;
    }
    return check(gnutls_psk_allocate_server_credentials(&creds->psk), "credentials in", creds->dir,
                 errp) &&
           check(gnutls_psk_set_server_credentials_file(creds->psk, keys),
                 "cannot load the keys in", keys, errp);
}

static bool parse_endpoint(struct options *opts, bool *is_server, struct error **errp)
{
    static const char *const names[] = {"client", "server", NULL};
    int endpoint = 0;

    if (!options_get_enum(opts, "endpoint", names, &endpoint, errp)) {
        return false;
    }
    *is_server = endpoint;
    return true;
}

static bool fill(struct nbd_tls_creds *creds, const char *type, struct options *opts,
                 struct error **errp)
{
    const char *dir = options_get(opts, "dir"), *priority = options_get(opts, "priority");
    const char *username = options_get(opts, "username");
    autofree char *what = xasprintf("object %s", type);

    creds->verify_peer = true;
    if (!parse_endpoint(opts, &creds->is_server, errp) ||
        !options_get_bool(opts, "verify-peer", &creds->verify_peer, errp)) {
        return false;
    }
    if (!dir) {
        error_set(errp, "%s: dir= with the folder of the credentials is missing", what);
        return false;
    }
    if (creds->is_psk && creds->is_server && username) {
        error_set(errp, "%s: 'username' should not be set if 'endpoint' is 'server'", what);
        return false;
    }
    if (!options_check_used(opts, what, errp)) {
        return false;
    }
    creds->dir = xstrdup(dir);
    creds->username = username ? xstrdup(username) : NULL;
    creds->priority = xasprintf("%s%s%s", priority ? priority : PRIORITY, creds->is_psk ? ":" : "",
                                creds->is_psk ? PRIORITY_PSK : "");
    if (!creds->is_server) {
        return true;
    }
    return creds->is_psk ? load_psk(creds, errp) : load_x509(creds, NULL, errp);
}

struct nbd_tls_creds *nbd_tls_creds_new(const char *type, struct options *opts, struct error **errp)
{
    struct nbd_tls_creds *creds = xnew(struct nbd_tls_creds);

    creds->is_psk = !strcmp(type, "tls-creds-psk");
    if (!fill(creds, type, opts, errp)) {
        nbd_tls_creds_free(creds);
        return NULL;
    }
    return creds;
}

void nbd_tls_creds_free(struct nbd_tls_creds *creds)
{
    if (!creds) {
        return;
    }
    if (creds->x509) {
        gnutls_certificate_free_credentials(creds->x509);
    }
    if (creds->psk) {
        gnutls_psk_free_server_credentials(creds->psk);
    }
    free(creds->dir);
    free(creds->username);
    free(creds->priority);
    free(creds);
}

bool nbd_tls_creds_is_server(const struct nbd_tls_creds *creds)
{
    return creds->is_server;
}

const char *nbd_tls_creds_dir(const struct nbd_tls_creds *creds)
{
    return creds->dir;
}

bool nbd_tls_creds_is_psk(const struct nbd_tls_creds *creds)
{
    return creds->is_psk;
}

const char *nbd_tls_creds_username(const struct nbd_tls_creds *creds)
{
    return creds->username;
}

bool nbd_tls_creds_verify_peer(const struct nbd_tls_creds *creds)
{
    return creds->verify_peer;
}

/* ---- sessions -------------------------------------------------------------------------------- */

static int set_up(struct nbd_tls *tls, int fd)
{
    const struct nbd_tls_creds *creds = tls->creds;
    int ret = gnutls_priority_set_direct(tls->session, creds->priority, NULL);

    if (ret == 0) {
        ret = creds->is_psk
                  ? gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, creds->psk)
                  : gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, creds->x509);
    }
    if (ret == 0 && !creds->is_psk) {
        gnutls_certificate_server_set_request(
            tls->session, creds->verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_REQUEST);
    }
    gnutls_transport_set_int(tls->session, fd);
    return ret;
}

struct nbd_tls *nbd_tls_new(const struct nbd_tls_creds *creds, int fd)
{
    struct nbd_tls *tls = xnew(struct nbd_tls);

    tls->creds = creds;
    if (gnutls_init(&tls->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
        free(tls);
        return NULL;
    }
    if (set_up(tls, fd) < 0) {
        nbd_tls_free(tls);
        return NULL;
    }
    return tls;
}

void nbd_tls_free(struct nbd_tls *tls)
{
    gnutls_deinit(tls->session);
    free(tls);
}

static ssize_t error_of(ssize_t ret)
{
    if (ret == GNUTLS_E_AGAIN || ret == GNUTLS_E_INTERRUPTED) {
        return -EAGAIN;
    }
    return ret == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -ECONNABORTED;
}

static bool peer_is_valid(struct nbd_tls *tls)
{
    unsigned status = 0;

    return tls->creds->is_psk || !tls->creds->verify_peer ||
           (gnutls_certificate_verify_peers2(tls->session, &status) == 0 && status == 0);
}

int nbd_tls_handshake(struct nbd_tls *tls)
{
    int ret = gnutls_handshake(tls->session);

    if (ret < 0) {
        /* A warning by the peer: the handshake goes on. */
        return gnutls_error_is_fatal(ret) ? (int)error_of(ret) : -EAGAIN;
    }
    return peer_is_valid(tls) ? 0 : -EACCES;
}

char *nbd_tls_peer_name(struct nbd_tls *tls)
{
    unsigned count = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(tls->session, &count);
    gnutls_x509_crt_t cert;
    gnutls_datum_t name = {0};
    char *copy = NULL;

    if (!list || !count || gnutls_x509_crt_init(&cert) < 0) {
        return NULL;
    }
    if (gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER) == 0 &&
        gnutls_x509_crt_get_dn3(cert, &name, GNUTLS_X509_DN_FLAG_COMPAT) == 0) {
        copy = xstrndup((const char *)name.data, name.size);
        gnutls_free(name.data);
    }
    gnutls_x509_crt_deinit(cert);
    return copy;
}

bool nbd_tls_wants_write(const struct nbd_tls *tls)
{
    return gnutls_record_get_direction(tls->session) == 1;
}

bool nbd_tls_has_pending(const struct nbd_tls *tls)
{
    return gnutls_record_check_pending(tls->session) > 0;
}

ssize_t nbd_tls_recv(struct nbd_tls *tls, void *to, size_t size)
{
    ssize_t n = gnutls_record_recv(tls->session, to, size);

    if (n == GNUTLS_E_PREMATURE_TERMINATION) {
        return 0;
    }
    return n < 0 ? error_of(n) : n;
}

ssize_t nbd_tls_send(struct nbd_tls *tls, const void *from, size_t size)
{
    ssize_t n = gnutls_record_send(tls->session, from, size);

    return n < 0 ? error_of(n) : n;
}

void nbd_tls_bye(struct nbd_tls *tls)
{
    gnutls_bye(tls->session, GNUTLS_SHUT_WR);
}
