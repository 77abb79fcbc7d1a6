/* SPDX-License-Identifier: MIT */
#include "monitor/qmp.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "config.h"

#define INPUT_MAX (1u << 20) /* bytes of one command */
#define DEPTH_MAX 1024

struct qmp_session {
    bool pretty;
    void (*output)(void *opaque, const char *text, size_t size);
    void *opaque;
    bool open, negotiated;
    unsigned client; /* the one that is served; another one may come while a command runs */
    char *input;
    size_t size, capacity;
    struct qmp_scan scan;
    bool discarding; /* an over-long command is dropped up to the next line */
};

int64_t qmp_scan(struct qmp_scan *scan, const char *data, size_t size)
{
    while (scan->done < size) {
        unsigned char c = data[scan->done++];

        /* Text has no such byte; by convention it asks the server to start afresh. */
        if (c == 0xff) {
            return QMP_SCAN_STRAY;
        }
        if (scan->in_string) {
            if (scan->escaped) {
                scan->escaped = false;
            } else if (c == '\\') {
                scan->escaped = true;
            } else if (c == '"') {
                scan->in_string = false;
            } else if (c < 0x20) {
                return QMP_SCAN_STRAY; /* a missing quote must not swallow the lines that follow */
            }
            continue;
        }
        switch (c) {
        case '"':
            scan->in_string = scan->started = true;
            break;
        case '{':
        case '[':
            scan->started = true;
            if (++scan->depth > DEPTH_MAX) {
                return QMP_SCAN_DEEP;
            }
            break;
        case '}':
        case ']':
            if (scan->depth == 0) {
                return QMP_SCAN_STRAY;
            }
            if (--scan->depth == 0) {
                return scan->done;
            }
            break;
        case '\n':
            /* A bare word is no command; let the parser say so. */
            if (scan->started && scan->depth == 0) {
                return scan->done;
            }
            break;
        case ' ':
        case '\t':
        case '\r':
            break;
        default:
            if (c < 0x20 || c >= 0x80) {
                return QMP_SCAN_STRAY;
            }
            scan->started = true;
            break;
        }
    }
    return 0;
}

/* As a terminal wants it: each line feed after a carriage return; to be freed. */
static char *with_carriage_returns(const char *text)
{
    char *copy = xmalloc(strlen(text) * 2 + 3), *p = copy;

    for (; *text; text++) {
        if (*text == '\n') {
            *p++ = '\r';
        }
        *p++ = *text;
    }
    memcpy(p, "\r\n", 3);
    return copy;
}

static void send_json(struct qmp_session *session, json_t *value)
{
    size_t flags = session->pretty ? JSON_INDENT(4) : 0;
    char *text = json_dumps(value, flags | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
    autofree char *line = NULL;

    if (text) {
        line = with_carriage_returns(text);
        session->output(session->opaque, line, strlen(line));
        free(text);
    }
    json_decref(value);
}

static void send_error(struct qmp_session *session, json_t *id, const char *class, const char *text)
{
    json_t *error = json_pack("{s:s, s:s}", "class", class, "desc", text);
    json_t *reply = json_object();

    if (!error) { /* text is not UTF-8 */
        error = json_pack("{s:s, s:s}", "class", class, "desc", "malformed request");
    }
    if (id) {
        json_object_set(reply, "id", id);
    }
    json_object_set_new(reply, "error", error);
    send_json(session, reply);
}

/* ---- arguments ------------------------------------------------------------------------------ */

static bool kind_matches(char kind, const json_t *value)
{
    switch (kind) {
    case 's':
        return json_is_string(value);
    case 'b':
        return json_is_boolean(value);
    case 'i':
        return json_is_integer(value);
    case 'o':
        return json_is_object(value);
    case 'a':
        return json_is_array(value);
    default:
        return true; /* '*': any */
    }
}

static const char *kind_name(char kind)
{
    switch (kind) {
    case 's':
        return "string";
    case 'b':
        return "boolean";
    case 'i':
        return "integer";
    case 'o':
        return "object";
    default:
        return "array";
    }
}

/* One entry of the list "id:s,?force:b"; false at the end. */
static bool next_argument(const char **list, char name[64], char *kind, bool *optional)
{
    const char *p = *list;
    size_t n;

    if (!p || !*p) {
        return false;
    }
    *optional = *p == '?';
    p += *optional;
    n = strcspn(p, ":");
    memcpy(name, p, MIN(n, (size_t)63));
    name[MIN(n, (size_t)63)] = 0;
    *kind = p[n + 1];
    p += n + 2;
    *list = *p == ',' ? p + 1 : p;
    return true;
}

static bool check_arguments(const struct qmp_command *command, json_t *args, struct error **errp)
{
    const char *list = command->arguments, *key;
    json_t *value;
    char name[64], kind;
    bool optional, any = false;

    while (next_argument(&list, name, &kind, &optional)) {
        if (!strcmp(name, "...")) {
            any = true; /* the command checks the others itself */
            continue;
        }
        value = json_object_get(args, name);
        if (!value && !optional) {
            error_set(errp, "Parameter '%s' is missing", name);
            return false;
        }
        if (value && !kind_matches(kind, value)) {
            error_set(errp, "Invalid parameter type for '%s', expected: %s", name, kind_name(kind));
            return false;
        }
    }
    json_object_foreach(args, key, value) {
        bool known = any;

        list = command->arguments;
        while (!known && next_argument(&list, name, &kind, &optional)) {
            known = !strcmp(name, key);
        }
        if (!known) {
            error_set(errp, "Parameter '%s' is unexpected", key);
            return false;
        }
    }
    return true;
}

/* ---- requests ------------------------------------------------------------------------------- */

static json_t *run_command(struct qmp_session *session, json_t *request, struct error **errp)
{
    json_t *args = json_object_get(request, "arguments"), *result = NULL, *empty = NULL;
    const char *name = json_string_value(json_object_get(request, "execute"));
    const struct qmp_command *command;
    const char *key;
    json_t *value;

    json_object_foreach(request, key, value) {
        if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id")) {
            error_set(errp, "QMP input member '%s' is unexpected", key);
            return NULL;
        }
    }
    if (!json_object_get(request, "execute")) {
        error_set(errp, "QMP input lacks member 'execute'");
        return NULL;
    }
    if (!name) {
        error_set(errp, "QMP input member 'execute' must be a string");
        return NULL;
    }
    if (args && !json_is_object(args)) {
        error_set(errp, "QMP input member 'arguments' must be an object");
        return NULL;
    }
    command = qmp_command_find(name);
    if (!command) {
        error_set_class(errp, ERROR_COMMAND_NOT_FOUND, "The command %s has not been found", name);
        return NULL;
    }
    if (!session->negotiated && !command->in_negotiation) {
        error_set_class(errp, ERROR_COMMAND_NOT_FOUND,
                        "Expecting capabilities negotiation with 'qmp_capabilities'");
        return NULL;
    }
    if (session->negotiated && !strcmp(name, "qmp_capabilities")) {
        error_set_class(errp, ERROR_COMMAND_NOT_FOUND,
                        "Capabilities negotiation is already complete, command ignored");
        return NULL;
    }
    empty = args ? NULL : json_object();
    args = args ? args : empty;
    if (check_arguments(command, args, errp)) {
        result = command->run(args, errp);
    }
    if (result && !strcmp(name, "qmp_capabilities")) {
        session->negotiated = true;
    }
    json_decref(empty);
    return result;
}

static void handle_request(struct qmp_session *session, const char *text, size_t size)
{
    json_error_t parse_error;
    json_t *request =
        json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &parse_error);
    json_t *id = request ? json_object_get(request, "id") : NULL, *result;
    struct error *err = NULL;
    unsigned client = session->client;

    if (!request) {
        autofree char *why = xasprintf("JSON parse error, %s", parse_error.text);
        send_error(session, NULL, "GenericError", why);
        return;
    }
    if (!json_is_object(request)) {
        send_error(session, NULL, "GenericError", "QMP input must be a JSON object");
        json_decref(request);
        return;
    }
    result = run_command(session, request, &err);
    if (!session->open || session->client != client) {
        json_decref(result); /* who asked has gone */
        error_free(err);
    } else if (result) {
        json_t *reply = json_pack("{s:o}", "return", result);
        if (id) {
            json_object_set(reply, "id", id);
        }
        send_json(session, reply);
    } else {
        send_error(session, id, error_class_name(err), error_message(err));
        error_free(err);
    }
    json_decref(request);
}

static void drop_input(struct qmp_session *session, size_t size)
{
    memmove(session->input, session->input + size, session->size - size);
    session->size -= size;
    session->scan = (struct qmp_scan){0};
}

/* What cannot be parsed is dropped up to the end of the line that the scan came to. */
static bool discard_line(struct qmp_session *session)
{
    size_t done = session->scan.done;
    char *end = memchr(session->input + done, '\n', session->size - done);

    drop_input(session, end ? (size_t)(end - session->input) + 1 : session->size);
    session->discarding = !end;
    return end != NULL;
}

static char *stray_text(unsigned char c)
{
    return c > 0x20 && c < 0x7f ? xasprintf("JSON parse error, stray '%c'", c)
                                : xasprintf("JSON parse error, stray byte 0x%02x", c);
}

static void process_input(struct qmp_session *session)
{
    while (session->open && session->size) {
        int64_t used;

        if (session->discarding && !discard_line(session)) {
            return;
        }
        used = qmp_scan(&session->scan, session->input, session->size);
        if (used == 0) {
            if (!session->scan.started) {
                drop_input(session, session->size); /* nothing but white space */
            }
            return;
        }
        if (used == QMP_SCAN_STRAY) {
            size_t at = session->scan.done - 1;
            autofree char *why = stray_text(session->input[at]);

            send_error(session, NULL, "GenericError", why);
            drop_input(session, at + 1);
            continue;
        }
        if (used == QMP_SCAN_DEEP) {
            send_error(session, NULL, "GenericError", "JSON nesting depth limit exceeded");
            discard_line(session);
            continue;
        }
        unsigned client = session->client;
        handle_request(session, session->input, used);
        if (!session->open || session->client != client) {
            return; /* and the input with it */
        }
        drop_input(session, used);
    }
}

void qmp_session_input(struct qmp_session *session, const char *data, size_t size)
{
    unsigned client = session->client;

    while (size && session->open && session->client == client) {
        size_t n = MIN(size, INPUT_MAX - session->size);

        if (n == 0) {
            send_error(session, NULL, "GenericError", "JSON parse error, the command is too long");
            session->discarding = true;
            drop_input(session, session->size);
            continue;
        }
        if (session->capacity < session->size + n) {
            session->capacity = session->size + n;
            session->input = xrealloc(session->input, session->capacity);
        }
        memcpy(session->input + session->size, data, n);
        session->size += n;
        data += n;
        size -= n;
        process_input(session);
    }
}

void qmp_session_event(struct qmp_session *session, json_t *event)
{
    if (session->open && session->negotiated) {
        send_json(session, json_incref(event));
    }
}

void qmp_session_open(struct qmp_session *session)
{
    session->open = true;
    session->client++;
    session->negotiated = session->discarding = false;
    session->size = 0;
    session->scan = (struct qmp_scan){0};
    /* Clients look for the member "qemu"; the package tells who answers. */
    send_json(session, json_pack("{s:{s:{s:{s:i, s:i, s:i}, s:s}, s:[]}}", "QMP", "version", "qemu",
                                 "micro", 0, "minor", 2, "major", 7, "package",
                                 "ferry " FERRY_VERSION, "capabilities"));
}

void qmp_session_close(struct qmp_session *session)
{
    session->open = false;
    session->size = 0;
}

struct qmp_session *qmp_session_new(bool pretty,
                                    void (*output)(void *opaque, const char *text, size_t size),
                                    void *opaque)
{
    struct qmp_session *session = xnew(struct qmp_session);

    session->pretty = pretty;
    session->output = output;
    session->opaque = opaque;
    return session;
}

void qmp_session_free(struct qmp_session *session)
{
    free(session->input);
    free(session);
}
