/* SPDX-License-Identifier: MIT */
/* Option lists: from comma lists and JSON, typed getters, unknown keys, hostile texts. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"

/* ---- helpers -------------------------------------------------------------------------------- */

/* The list as "key=value|key=value", in order. */
static char *flat(const struct options *opts)
{
    char *s = xstrdup("");
    for (size_t i = 0; i < options_count(opts); i++) {
        char *longer =
            xasprintf("%s%s%s=%s", s, i ? "|" : "", options_key(opts, i), options_value(opts, i));
        free(s);
        s = longer;
    }
    return s;
}

static void expect_list(const char *text, const char *implied_key, const char *expected)
{
    struct error *err = NULL;
    struct options *opts = options_parse(text, implied_key, &err);
    if (!opts)
        fail_msg("'%s': %s", text, error_message(err));
    autofree char *s = flat(opts);
    assert_string_equal(s, expected);
    options_free(opts);
}

static void expect_refused(const char *text, const char *implied_key, const char *part)
{
    struct error *err = NULL;
    struct options *opts = options_parse(text, implied_key, &err);
    if (opts) {
        autofree char *s = flat(opts);
        fail_msg("'%s' was taken as %s", text, s);
    }
    assert_non_null(err);
    if (!strstr(error_message(err), part))
        fail_msg("'%s': error '%s' lacks '%s'", text, error_message(err), part);
    error_free(err);
    /* Without a place for the error it fails in the same way. */
    assert_null(options_parse(text, implied_key, NULL));
}

static struct options *parse(const char *text)
{
    struct options *opts = options_parse(text, NULL, NULL);
    assert_non_null(opts);
    return opts;
}

/* ---- comma lists ---------------------------------------------------------------------------- */

static void lists(void **state)
{
    expect_list("", NULL, "");
    expect_list("", "driver", "");
    expect_list("a=1", NULL, "a=1");
    expect_list("a=1,b=2,c=", NULL, "a=1|b=2|c=");
    expect_list("a=1,", NULL, "a=1");
    expect_list("a=b=c", NULL, "a=b=c");
    expect_list("a= x ", NULL, "a= x ");
}

static void doubled_commas(void **state)
{
    expect_list("file=a,,b.img,if=none", NULL, "file=a,b.img|if=none");
    expect_list("file=,,", NULL, "file=,");
    expect_list("file=,,,,", NULL, "file=,,");
    expect_list("file=x,,,b", NULL, "file=x,|b=on");
    expect_list("file=,,x", NULL, "file=,x");
    expect_list("a,,b=c,d=e", "driver", "driver=a,b=c|d=e");
}

static void implied_key(void **state)
{
    expect_list("virtio-blk-pci,drive=d0", "driver", "driver=virtio-blk-pci|drive=d0");
    expect_list("driver=x,drive=d0", "driver", "driver=x|drive=d0");
    expect_list("help", "driver", "driver=help");
    expect_list("q35,help", "type", "type=q35|help=on");
    expect_list("?", "driver", "driver=?");
    /* "no" means something only in flags. */
    expect_list("none", "type", "type=none");
    /* Only the first item is implied. */
    expect_list("a=1,b", "driver", "a=1|b=on");
    expect_list("x,driver=y", "driver", "driver=y");
}

static void flags(void **state)
{
    expect_list("server,nowait", NULL, "server=on|wait=off");
    expect_list("readonly=off,readonly", NULL, "readonly=on");
    expect_list("wait,nowait", NULL, "wait=off");
    expect_list("no", NULL, "no=on");
}

static void later_overrides(void **state)
{
    expect_list("a=1,b=2,a=3", NULL, "a=3|b=2");
    expect_list("a=1,noa", NULL, "a=off");
}

static void malformed_lists(void **state)
{
    expect_refused(",a=1", NULL, "empty option");
    expect_refused(",a=1", "driver", "empty option");
    expect_refused("=1", NULL, "without a name");
    expect_refused("=1", "driver", "without a name");
    expect_refused("a,,b=1", NULL, "empty option");
    expect_refused("a=1,=2", NULL, "without a name");
    expect_refused(",", NULL, "empty option");
    expect_refused("a=1,b,,", NULL, "empty option");
}

/* Every string over a small alphabet up to a length, plain and with an implied key: each is taken
 * or refused with an error; the sanitizers watch. */
static void all_short_texts(void **state)
{
    static const char alphabet[] = "an=,{}\"";
    char text[6];
    for (unsigned n = 0; n < 7 * 7 * 7 * 7 * 7; n++) {
        unsigned rest = n;
        for (size_t i = 0; i < 5; i++, rest /= 7)
            text[i] = alphabet[rest % 7];
        text[5] = 0;
        struct error *err = NULL;
        struct options *opts = options_parse(text, n & 1 ? "key" : NULL, &err);
        assert_true((opts == NULL) == (err != NULL));
        options_free(opts);
        error_free(err);
    }
}

static void long_lists(void **state)
{
    /* 4096 options are taken, one more is not. */
    size_t size = 5000 * 8;
    char *text = xmalloc(size);
    for (int count = 4096; count <= 4097; count++) {
        char *p = text;
        for (int i = 0; i < count; i++)
            p += sprintf(p, "k%d=v,", i);
        if (count == 4096) {
            struct options *opts = parse(text);
            assert_int_equal(options_count(opts), 4096);
            assert_string_equal(options_get(opts, "k4095"), "v");
            options_free(opts);
        } else {
            expect_refused(text, NULL, "more than 4096 options");
        }
    }
    free(text);

    /* A value of a megabyte. */
    size = 1 << 20;
    text = xmalloc(size + 1);
    memset(text, ',', size);
    memcpy(text, "k=", 2);
    text[size] = 0;
    struct options *opts = parse(text);
    assert_int_equal(strlen(options_get(opts, "k")), (size - 2) / 2);
    options_free(opts);
    free(text);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void json(void **state)
{
    expect_list("{}", NULL, "");
    expect_list("{\"driver\": \"virtio-blk-pci\", \"drive\": \"d,0\"}", "driver",
                "driver=virtio-blk-pci|drive=d,0");
    expect_list("{\"a\": {\"b\": {\"c\": 1}, \"d\": -2}}", NULL, "a.b.c=1|a.d=-2");
    expect_list("{\"q\": [1, \"two\", {\"x\": true}, [false]]}", NULL,
                "q.0=1|q.1=two|q.2.x=on|q.3.0=off");
    expect_list("{\"a\": true, \"b\": false}", NULL, "a=on|b=off");
    expect_list("{\"f\": 0.5}", NULL, "f=0.5");
    expect_list("{\"big\": 9223372036854775807}", NULL, "big=9223372036854775807");
    expect_list("{\"backing\": null, \"o\": {}, \"l\": []}", NULL, "backing=|o=|l=");
    expect_list("{\"driver\": \"qcow2\", \"file.driver\": \"file\"}", NULL,
                "driver=qcow2|file.driver=file");
    expect_list("{\"noflag\": \"x\"}", NULL, "noflag=x");
    expect_list(
        "{'a': 'b\"c', \"d\": \"it's\", 'e': 'it\\'s', \"f\": \"it\\'s\", 'g': '\\\\\\u0061'}",
        NULL, "a=b\"c|d=it's|e=it's|f=it's|g=\\a");
}

/* What JSON had as a number, a truth value or a null is one again, also in another list. */
static void json_values(void **state)
{
    struct options *opts = options_parse(
        "{'a': {'b': 5, 'c': '5', 'd': true, 'e': 'on', 'f': null, 'g': -1.5}}", NULL, NULL);
    struct options *taken = options_take_prefix(opts, "a");
    autofree char *text = xstrdup("");

    for (size_t i = 0; i < options_count(taken); i++) {
        json_t *value = options_value_json(taken, i);
        char *dumped = json_dumps(value, JSON_ENCODE_ANY);
        char *longer = xasprintf("%s%s ", text, dumped);
        free(dumped);
        free(text);
        text = longer;
        json_decref(value);
    }
    assert_string_equal(text, "5 \"5\" true \"on\" null -1.5 ");
    options_set(taken, "b", "6"); /* no longer */
    json_t *value = options_value_json(taken, 0);
    assert_true(json_is_string(value));
    json_decref(value);
    options_free(taken);
    options_free(opts);
}

/* In JSON "5" is no number, nor "on" a truth value; from anywhere else they are. */
static void json_types(void **state)
{
    static const char *const names[] = {"on", "5", NULL};
    struct options *opts =
        options_parse("{'a': {'number': 5, 'text': '5', 'real': 5.0, 'yes': true,"
                      "'on': 'on', 'null': null}}",
                      NULL, NULL);
    struct options *a = options_take_prefix(opts, "a");
    struct error *err = NULL;
    uint64_t number = 0;
    bool on = false;
    int index = -1;

    assert_true(options_get_uint(a, "number", 0, 9, &number, NULL) && number == 5);
    assert_true(options_get_size(a, "number", 1, &number, NULL));
    assert_true(options_get_bool(a, "yes", &on, NULL) && on);
    assert_true(options_get_enum(a, "on", names, &index, NULL) && index == 0);
    assert_false(options_get_uint(a, "text", 0, 9, &number, &err));
    assert_string_equal(error_message(err),
                        "Invalid parameter type for 'a.text', expected: integer");
    error_free(err);
    assert_false(options_get_size(a, "real", 1, &number, NULL));
    assert_false(options_get_size(a, "null", 1, &number, NULL));
    assert_false(options_get_bool(a, "on", &on, NULL));
    assert_false(options_get_enum(a, "yes", names, &index, NULL));
    assert_false(options_get_enum(a, "number", names, &index, NULL));
    assert_true(options_check_type(a, "none", OPTION_STRING, NULL));
    assert_int_equal(options_type(a, 0), OPTION_INTEGER);

    options_loosen(a);
    assert_true(options_get_uint(a, "text", 0, 9, &number, NULL));
    assert_true(options_get_bool(a, "on", &on, NULL));
    assert_true(options_get_enum(a, "number", names, &index, NULL) && index == 1);
    options_set_typed(a, "typed", "5", OPTION_INTEGER);
    assert_true(options_get_enum(a, "typed", names, &index, NULL));
    options_free(a);
    options_free(opts);
}

static void json_dotted_names(void **state)
{
    struct options *opts = options_parse("{'a': {'b': 1}}", NULL, NULL);
    struct error *err = NULL;

    assert_true(options_check_nested(opts, NULL));
    options_free(opts);
    opts = options_parse("{'a': {'b.c': {'d': 1}}}", NULL, NULL);
    assert_false(options_check_nested(opts, &err));
    assert_non_null(strstr(error_message(err), "'a.b.c.d' is unexpected"));
    error_free(err);
    options_loosen(opts);
    assert_true(options_check_nested(opts, NULL));
    options_free(opts);
}

static void malformed_json(void **state)
{
    expect_refused("{", NULL, "JSON");
    expect_refused("{\"a\": 1,}", NULL, "JSON");
    expect_refused("{'a\": 1}", NULL, "JSON");
    expect_refused("{'a': 'b}", NULL, "JSON");
    expect_refused("{'a': 'b\\", NULL, "JSON");
    expect_refused("{'", NULL, "JSON");
    expect_refused("{\"a\": 1} x", NULL, "JSON");
    expect_refused("{\"a\": 1, \"a\": 2}", NULL, "JSON");
    expect_refused("{\"a\": {\"b\": 1}, \"a.b\": 2}", NULL, "'a.b' is given twice");
    expect_refused("{\"\": 1}", NULL, "no name");
    expect_refused("{\"a\": {\"\": 1}}", NULL, "'a' has no name");
    expect_refused("{\"a\": \"\\u0000\"}", NULL, "JSON");
    expect_refused("{\"a\": \"\xff\"}", NULL, "JSON");
    expect_refused("{\"a\": 99999999999999999999}", NULL, "JSON");
}

static void hostile_json(void **state)
{
    /* Deep, by objects and by arrays; and deeper than the JSON library itself goes. */
    for (int depth = 40; depth <= 100000; depth *= 50) {
        char *text = xmalloc((size_t)depth * 6 + 100);
        char *p = text;
        for (int i = 0; i < depth; i++)
            p += sprintf(p, "{\"a\":");
        p += sprintf(p, "1");
        memset(p, '}', (size_t)depth);
        p[depth] = 0;
        expect_refused(text, NULL, depth < 2000 ? "nested more than" : "JSON");

        p = text + sprintf(text, "{\"a\":");
        memset(p, '[', (size_t)depth);
        p += depth;
        memset(p, ']', (size_t)depth);
        p[depth] = '}';
        p[depth + 1] = 0;
        expect_refused(text, NULL, depth < 2000 ? "nested more than" : "JSON");
        free(text);
    }

    /* Many. */
    size_t count = 100000;
    char *text = xmalloc(count * 2 + 100);
    char *p = text + sprintf(text, "{\"a\":[1");
    for (size_t i = 1; i < count; i++)
        p += sprintf(p, ",1");
    sprintf(p, "]}");
    expect_refused(text, NULL, "more than 4096 values");
    free(text);
}

static void from_json(void **state)
{
    json_t *value = json_pack("{s:s, s:{s:i, s:b}}", "driver", "null-co", "o", "size", 512, "b", 1);
    struct options *opts = options_from_json(value, NULL);
    assert_non_null(opts);
    autofree char *s = flat(opts);
    assert_string_equal(s, "driver=null-co|o.size=512|o.b=on");
    options_free(opts);
    json_decref(value);

    value = json_array();
    struct error *err = NULL;
    assert_null(options_from_json(value, &err));
    assert_string_equal(error_message(err), "JSON: not an object");
    error_free(err);
    json_decref(value);
}

/* ---- the list ------------------------------------------------------------------------------- */

static void set_get_unset(void **state)
{
    struct options *opts = options_new();
    assert_null(options_get(opts, "a"));
    assert_false(options_has(opts, "a"));
    options_set(opts, "a", "1");
    options_set(opts, "b", "2");
    assert_true(options_has(opts, "a"));
    assert_string_equal(options_get(opts, "a"), "1");
    options_set(opts, "a", options_get(opts, "a")); /* from itself */
    options_set(opts, "b", options_get(opts, "a")); /* from another */
    assert_string_equal(options_get(opts, "b"), "1");
    options_unset(opts, "a");
    options_unset(opts, "none");
    assert_null(options_get(opts, "a"));

    char *taken = options_take(opts, "b");
    assert_string_equal(taken, "1");
    free(taken);
    assert_null(options_take(opts, "b"));
    assert_int_equal(options_count(opts), 0);
    options_free(opts);
    options_free(NULL);
}

static void take_prefix(void **state)
{
    struct options *opts = parse("driver=qcow2,file.driver=file,file=x,file.filename=f,"
                                 "files.x=1,file.a.b=c,filed=2");
    struct options *file = options_take_prefix(opts, "file");
    autofree char *taken = flat(file), *left = flat(opts);
    assert_string_equal(taken, "driver=file|filename=f|a.b=c");
    assert_string_equal(left, "driver=qcow2|file=x|files.x=1|filed=2");
    options_free(file);

    struct options *none = options_take_prefix(opts, "nothing");
    assert_int_equal(options_count(none), 0);
    options_free(none);
    options_free(opts);
}

static void expect_unknown(struct options *opts, const char *message)
{
    struct error *err = NULL;
    assert_false(options_check_used(opts, "-device virtio-blk-pci", &err));
    assert_string_equal(error_message(err), message);
    error_free(err);
}

static void unknown_keys(void **state)
{
    struct options *opts = parse("drive=d0,num-quues=4,zzz=1,serail=x");
    options_get(opts, "drive");
    options_get(opts, "num-queues");
    options_get(opts, "serial");
    expect_unknown(opts, "-device virtio-blk-pci: unknown option 'num-quues'; did you mean "
                         "'num-queues'?");
    options_unset(opts, "num-quues");
    expect_unknown(opts, "-device virtio-blk-pci: unknown option 'zzz'");
    assert_false(options_check_used(opts, "x", NULL));
    options_unset(opts, "zzz");
    /* To look whether it is there is not to use it. */
    assert_true(options_has(opts, "serail"));
    expect_unknown(opts, "-device virtio-blk-pci: unknown option 'serail'; did you mean 'serial'?");
    options_get(opts, "serail");
    struct error *err = NULL;
    assert_true(options_check_used(opts, "x", &err));
    assert_null(err);
    /* A value set later must be asked for again. */
    options_set(opts, "drive", "d1");
    expect_unknown(opts, "-device virtio-blk-pci: unknown option 'drive'; did you mean 'drive'?");
    options_free(opts);

    /* A flag is quoted as it was written, not as "de-name". */
    opts = parse("node-name");
    options_get(opts, "node_name");
    expect_unknown(opts, "-device virtio-blk-pci: unknown option 'node-name'; did you mean "
                         "'node_name'?");
    options_free(opts);
}

/* ---- typed getters -------------------------------------------------------------------------- */

static void expect_message(struct error **err, const char *message)
{
    assert_non_null(*err);
    assert_string_equal(error_message(*err), message);
    error_free(*err);
    *err = NULL;
}

static void get_bool(void **state)
{
    struct options *opts = parse("a=on,b=off,c=maybe,d");
    struct error *err = NULL;
    bool v = false;
    assert_true(options_get_bool(opts, "a", &v, &err));
    assert_true(v);
    assert_true(options_get_bool(opts, "b", &v, &err));
    assert_false(v);
    assert_true(options_get_bool(opts, "d", &v, &err));
    assert_true(v);
    assert_true(options_get_bool(opts, "absent", &v, &err));
    assert_true(v);
    assert_false(options_get_bool(opts, "c", &v, &err));
    assert_true(v);
    expect_message(&err, "option 'c': 'maybe' is neither 'on' nor 'off'");
    options_free(opts);
}

static void get_uint(void **state)
{
    struct options *opts = parse("a=4,b=0x10,c=-1,d=65,e=,f=18446744073709551615");
    struct error *err = NULL;
    uint64_t v = 7;
    assert_true(options_get_uint(opts, "absent", 1, 64, &v, &err));
    assert_int_equal(v, 7);
    assert_true(options_get_uint(opts, "a", 1, 64, &v, &err));
    assert_int_equal(v, 4);
    assert_true(options_get_uint(opts, "b", 1, 16, &v, &err));
    assert_int_equal(v, 16);
    assert_false(options_get_uint(opts, "c", 0, UINT64_MAX, &v, &err));
    expect_message(&err, "option 'c': '-1' is not a number from 0 to 18446744073709551615");
    assert_false(options_get_uint(opts, "d", 1, 64, &v, &err));
    expect_message(&err, "option 'd': '65' is not a number from 1 to 64");
    assert_false(options_get_uint(opts, "e", 0, 64, &v, NULL));
    assert_int_equal(v, 16);
    assert_true(options_get_uint(opts, "f", 0, UINT64_MAX, &v, &err));
    assert_true(v == UINT64_MAX);
    options_free(opts);
}

static void get_size(void **state)
{
    struct options *opts = parse("a=512,b=2G,c=4Q");
    struct error *err = NULL;
    uint64_t v = 7;
    assert_true(options_get_size(opts, "absent", MiB, &v, &err));
    assert_int_equal(v, 7);
    assert_true(options_get_size(opts, "a", MiB, &v, &err));
    assert_int_equal(v, 512 * MiB);
    assert_true(options_get_size(opts, "b", MiB, &v, &err));
    assert_int_equal(v, 2 * GiB);
    assert_false(options_get_size(opts, "c", MiB, &v, &err));
    assert_int_equal(v, 2 * GiB);
    assert_non_null(strstr(error_message(err), "'c': '4Q'"));
    error_free(err);
    options_free(opts);
}

static void get_enum(void **state)
{
    static const char *const names[] = {"threads", "native", "io_uring", NULL};
    struct options *opts = parse("aio=io_uring,b=IO_uring");
    struct error *err = NULL;
    int v = 1;
    assert_true(options_get_enum(opts, "absent", names, &v, &err));
    assert_int_equal(v, 1);
    assert_true(options_get_enum(opts, "aio", names, &v, &err));
    assert_int_equal(v, 2);
    assert_false(options_get_enum(opts, "b", names, &v, &err));
    assert_int_equal(v, 2);
    expect_message(&err, "option 'b': 'IO_uring' is unknown; use threads, native or io_uring");
    options_free(opts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(doubled_commas),
        cmocka_unit_test(implied_key),
        cmocka_unit_test(flags),
        cmocka_unit_test(later_overrides),
        cmocka_unit_test(malformed_lists),
        cmocka_unit_test(all_short_texts),
        cmocka_unit_test(long_lists),
        cmocka_unit_test(json),
        cmocka_unit_test(json_values),
        cmocka_unit_test(json_types),
        cmocka_unit_test(json_dotted_names),
        cmocka_unit_test(malformed_json),
        cmocka_unit_test(hostile_json),
        cmocka_unit_test(from_json),
        cmocka_unit_test(set_get_unset),
        cmocka_unit_test(take_prefix),
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(get_bool),
        cmocka_unit_test(get_uint),
        cmocka_unit_test(get_size),
        cmocka_unit_test(get_enum),
    };
    return cmocka_run_group_tests_name("base/options", tests, NULL, NULL);
}
