/* SPDX-License-Identifier: MIT */
/* What the server answers before transmission: options good, malformed and unknown. */
#include "kit.h"

#include <string.h>

#include "block/bitmap.h"

#define BOTH (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

static void run(client_fn *fn)
{
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){0});
    client_run(&s, fn, NULL);
    assert_int_equal(s.closed, 1);
    server_stop(&s);
}

/* ---- export name ----------------------------------------------------------------------------- */

static void old_style(int fd, void *opaque)
{
    uint8_t reply[10 + NBD_EXPORT_NAME_ZEROES];

    greet(fd, NBD_FLAG_FIXED_NEWSTYLE);
    option_put(fd, NBD_OPT_EXPORT_NAME, "ro", 2);
    get(fd, reply, sizeof(reply));
    CHECK(load_be64(reply) == IMAGE_SIZE);
    CHECK(load_be16(reply + 8) & NBD_FLAG_READ_ONLY);
    request_put(fd, 0, NBD_CMD_FLUSH, 7, 0, 0);
    CHECK(simple_get(fd, 7) == 0);
    request_put(fd, 0, NBD_CMD_DISC, 8, 0, 0);
    expect_end(fd);
}

static void test_export_name(void **state)
{
    run(old_style);
}

static void ancient(int fd, void *opaque)
{
    uint8_t reply[10];

    greet(fd, NBD_FLAG_NO_ZEROES);
    option_put(fd, NBD_OPT_EXPORT_NAME, "", 0);
    get(fd, reply, sizeof(reply));
    CHECK(load_be64(reply) == IMAGE_SIZE);
    CHECK(!(load_be16(reply + 8) & NBD_FLAG_READ_ONLY));
}

static void test_not_fixed(void **state)
{
    run(ancient);
}

static void unknown_name(int fd, void *opaque)
{
    greet(fd, BOTH);
    option_put(fd, NBD_OPT_EXPORT_NAME, "nobody", 6);
    expect_end(fd);
}

static void test_export_name_unknown(void **state)
{
    run(unknown_name);
}

/* ---- what ends the connection ---------------------------------------------------------------- */

static void bad_flags(int fd, void *opaque)
{
    greet(fd, 4);
    expect_end(fd);
}

static void bad_magic(int fd, void *opaque)
{
    greet(fd, BOTH);
    put(fd, "GET / HTTP/1.1\r\nHost: example\r\n\r\n", 34);
    expect_end(fd);
}

static void not_fixed_asks(int fd, void *opaque)
{
    greet(fd, 0);
    option_put(fd, NBD_OPT_LIST, NULL, 0);
    expect_end(fd);
}

static void far_too_long(int fd, void *opaque)
{
    greet(fd, BOTH);
    option_put(fd, NBD_OPT_GO, NULL, UINT32_MAX);
    expect_end(fd);
}

static void long_name(int fd, void *opaque)
{
    greet(fd, BOTH);
    option_put(fd, NBD_OPT_EXPORT_NAME, NULL, NBD_STRING_MAX + 1); /* not even looked at */
    expect_end(fd);
}

static void aborts(int fd, void *opaque)
{
    greet(fd, BOTH);
    option_put(fd, NBD_OPT_ABORT, NULL, 0);
    option_expect(fd, NBD_OPT_ABORT, NBD_REP_ACK);
    expect_end(fd);
}

static void asks_for_ever(int fd, void *opaque)
{
    uint8_t head[NBD_OPTION_HEAD_SIZE];

    greet(fd, BOTH);
    for (unsigned i = 0; i < NBD_OPTIONS_MAX; i++) {
        option_put(fd, 99, NULL, 0);
        option_expect(fd, 99, NBD_REP_ERR_UNSUP);
    }
    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, 99);
    store_be32(head + 12, 0);
    put(fd, head, sizeof(head));
    expect_end(fd);
}

static void says_nothing(int fd, void *opaque)
{
    uint8_t greeting[NBD_GREETING_SIZE];

    get(fd, greeting, sizeof(greeting));
    expect_end(fd);
}

static void test_ends(void **state)
{
    run(bad_flags);
    run(bad_magic);
    run(not_fixed_asks);
    run(far_too_long);
    run(long_name);
    run(aborts);
    run(asks_for_ever);
}

static void test_handshake_timeout(void **state)
{
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){.handshake_seconds = 1});
    client_run(&s, says_nothing, NULL);
    server_stop(&s);
}

/* ---- errors, after which it goes on ---------------------------------------------------------- */

static void malformed(int fd, void *opaque)
{
    static const uint8_t zeroes[NBD_OPTION_MAX + 1];
    uint8_t data[64];

    greet(fd, BOTH);
    option_put(fd, 77, "abc", 3);
    option_expect(fd, 77, NBD_REP_ERR_UNSUP);
    option_put(fd, NBD_OPT_LIST, "x", 1);
    option_expect(fd, NBD_OPT_LIST, NBD_REP_ERR_INVALID);
    option_put(fd, NBD_OPT_STRUCTURED_REPLY, "x", 1);
    option_expect(fd, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
    option_put(fd, NBD_OPT_STARTTLS, NULL, 0);
    option_expect(fd, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY);

    /* Every length that is wrong: of the whole, of the name, of the list of requests. */
    size_t n = string_put(data, "ro");
    store_be16(data + n, 1);
    store_be16(data + n + 2, NBD_INFO_NAME);
    for (uint32_t size = 0; size < n + 4; size++) {
        option_put(fd, NBD_OPT_INFO, data, size);
        option_expect(fd, NBD_OPT_INFO, NBD_REP_ERR_INVALID);
    }
    option_put(fd, NBD_OPT_GO, data, (uint32_t)n + 5);
    option_expect(fd, NBD_OPT_GO, NBD_REP_ERR_INVALID);
    store_be32(data, UINT32_MAX);
    option_put(fd, NBD_OPT_GO, data, (uint32_t)n + 4);
    option_expect(fd, NBD_OPT_GO, NBD_REP_ERR_INVALID);
    store_be32(data, 2);
    store_be16(data + n, 0xffff);
    option_put(fd, NBD_OPT_GO, data, (uint32_t)n + 4);
    option_expect(fd, NBD_OPT_GO, NBD_REP_ERR_INVALID);

    option_put(fd, NBD_OPT_GO, zeroes, sizeof(zeroes));
    option_expect(fd, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
    n = string_put(data, "nobody");
    store_be16(data + n, 0);
    option_put(fd, NBD_OPT_GO, data, (uint32_t)n + 2);
    option_expect(fd, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
    CHECK(go(fd, "", NULL) == IMAGE_SIZE);
}

static void test_malformed(void **state)
{
    run(malformed);
}

/* ---- lists and information ------------------------------------------------------------------- */

static void lists(int fd, void *opaque)
{
    static const char *const names[] = {"", "ro", "other"};
    uint8_t data[64];
    uint32_t size;

    greet(fd, BOTH);
    option_put(fd, NBD_OPT_LIST, NULL, 0);
    for (int i = 0; i < 3; i++) {
        CHECK(option_get(fd, NBD_OPT_LIST, data, sizeof(data), &size) == NBD_REP_SERVER);
        size_t length = strlen(names[i]);
        CHECK(load_be32(data) == length && !memcmp(data + 4, names[i], length));
        CHECK(size == 4 + length + (i ? strlen("a description") : 0));
    }
    option_expect(fd, NBD_OPT_LIST, NBD_REP_ACK);
}

static void test_list(void **state)
{
    run(lists);
}

static void informs(int fd, void *opaque)
{
    uint8_t data[64];
    uint32_t size;
    unsigned seen = 0;
    size_t n = string_put(data, "ro");

    greet(fd, BOTH);
    store_be16(data + n, 4);
    store_be16(data + n + 2, NBD_INFO_NAME);
    store_be16(data + n + 4, NBD_INFO_DESCRIPTION);
    store_be16(data + n + 6, NBD_INFO_BLOCK_SIZE);
    store_be16(data + n + 8, 4711);
    option_put(fd, NBD_OPT_INFO, data, (uint32_t)n + 10);
    while (option_get(fd, NBD_OPT_INFO, data, sizeof(data), &size) == NBD_REP_INFO) {
        seen |= 1u << load_be16(data);
        if (load_be16(data) == NBD_INFO_BLOCK_SIZE) {
            CHECK(size == 14 && load_be32(data + 2) == 1 && load_be32(data + 6) == 4096 &&
                  load_be32(data + 10) == NBD_MAX_PAYLOAD);
        }
    }
    CHECK(seen == 0xf);
}

static void test_info(void **state)
{
    run(informs);
}

/* ---- metadata contexts ----------------------------------------------------------------------- */

static uint32_t meta(uint8_t *data, const char *export, uint32_t count, const char *const *queries)
{
    size_t n = string_put(data, export);

    store_be32(data + n, count);
    n += 4;
    for (uint32_t i = 0; i < count; i++) {
        n += string_put(data + n, queries[i]);
    }
    return (uint32_t)n;
}

/* How many contexts the server names. */
static unsigned ask_meta(int fd, uint32_t option, const char *export, uint32_t count,
                         const char *const *queries)
{
    uint8_t data[256];
    uint32_t type, size;
    unsigned named = 0;

    option_put(fd, option, data, meta(data, export, count, queries));
    while ((type = option_get(fd, option, data, sizeof(data), &size)) == NBD_REP_META_CONTEXT) {
        named++;
    }
    CHECK(type == NBD_REP_ACK);
    return named;
}

static void chooses(int fd, void *opaque)
{
    static const char *const base[] = {"base:allocation"}, *const spaces[] = {"base:", "qemu:"},
                             *const both[] = {"qemu:allocation-depth", "base:allocation"},
                             *const strange[] = {"qemu:dirty-bitmap:x", "x-y:z", ""};
    uint8_t data[256];

    greet(fd, BOTH);
    uint32_t size = meta(data, "", 1, base);
    option_put(fd, NBD_OPT_SET_META_CONTEXT, data, size);
    option_expect(fd, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID); /* no structured replies */
    structured(fd);
    for (uint32_t n = 0; n < size; n++) {
        option_put(fd, NBD_OPT_SET_META_CONTEXT, data, n);
        option_expect(fd, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
    }
    store_be32(data + 4, UINT32_MAX); /* number of queries */
    option_put(fd, NBD_OPT_SET_META_CONTEXT, data, size);
    option_expect(fd, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
    option_put(fd, NBD_OPT_LIST_META_CONTEXT, data, meta(data, "nobody", 0, NULL));
    option_expect(fd, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_UNKNOWN);

    CHECK(ask_meta(fd, NBD_OPT_LIST_META_CONTEXT, "", 0, NULL) == 2);
    CHECK(ask_meta(fd, NBD_OPT_LIST_META_CONTEXT, "ro", 0, NULL) == 1);
    CHECK(ask_meta(fd, NBD_OPT_LIST_META_CONTEXT, "", 2, spaces) == 2);
    CHECK(ask_meta(fd, NBD_OPT_SET_META_CONTEXT, "", 2, spaces) == 0);
    CHECK(ask_meta(fd, NBD_OPT_SET_META_CONTEXT, "", 3, strange) == 0);
    CHECK(ask_meta(fd, NBD_OPT_SET_META_CONTEXT, "", 2, both) == 2);
    CHECK(ask_meta(fd, NBD_OPT_SET_META_CONTEXT, "", 0, NULL) == 0);
    CHECK(ask_meta(fd, NBD_OPT_SET_META_CONTEXT, "ro", 1, base) == 1);
    /* They were chosen for another export. */
    go(fd, "", NULL);
    request_put(fd, 0, NBD_CMD_BLOCK_STATUS, 5, 0, 4096);
    CHECK(error_get(fd, 5) == NBD_EINVAL);
}

static void test_meta(void **state)
{
    run(chooses);
}

/* What a read-only export tells must not change under its clients. */
static void test_bitmap_of_writable(void **state)
{
    static const char *const bitmaps[] = {"b"};
    struct nbd_export_config config = {
        .name = "with", .bitmaps = bitmaps, .bitmap_count = ARRAY_SIZE(bitmaps)};
    struct error *err = NULL;
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){0});
    config.be = s.be;
    struct block_bitmap *bitmap = block_bitmap_new(backend_root(s.be), "b", 0, NULL);
    assert_false(nbd_server_add_export(s.server, &config, &err));
    kit_assert_error(err, "Enabled bitmap 'b' incompatible with readonly export");
    bitmap->enabled = false;
    assert_true(nbd_server_add_export(s.server, &config, NULL));
    server_stop(&s);

    kit_make_file("image", IMAGE_SIZE);
    server_start(&s, &(struct nbd_server_config){0});
    config.be = kit_drive("file=image,format=raw,if=none,id=second,read-only=on,file.locking=off");
    block_bitmap_new(backend_root(config.be), "b", 0, NULL);
    assert_true(nbd_server_add_export(s.server, &config, NULL));
    server_stop(&s);
}

/* ---- exports that go ------------------------------------------------------------------------- */

static void stays(int fd, void *opaque)
{
    greet(fd, BOTH);
    go(fd, "other", NULL);
    request_put(fd, 0, NBD_CMD_FLUSH, 1, 0, 0);
    CHECK(simple_get(fd, 1) == 0);
    *(_Atomic(bool) *)opaque = true;
    expect_end(fd);
}

struct removal {
    struct kit_server *s;
    _Atomic(bool) is_in;
    struct aio_timer timer;
};

static void remove_when_in(void *opaque)
{
    struct removal *removal = opaque;

    if (!atomic_load(&removal->is_in)) {
        timer_set(&removal->timer, clock_get_ns(AIO_CLOCK_RT) + NS_PER_MS);
        return;
    }
    CHECK(nbd_server_remove_export(removal->s->server, "other", NULL));
    CHECK(!nbd_server_remove_export(removal->s->server, "other", NULL));
}

static void remove_other(unsigned threads)
{
    struct removal removal = {0};
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){.threads = threads});
    removal.s = &s;
    timer_init(&removal.timer, aio_loop_current(), AIO_CLOCK_RT, remove_when_in, &removal);
    timer_set(&removal.timer, 0);
    client_run(&s, stays, &removal.is_in);
    server_stop(&s);
}

static void test_remove_export(void **state)
{
    remove_other(0);
    remove_other(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_export_name, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_not_fixed, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_export_name_unknown, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_ends, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_handshake_timeout, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_malformed, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_list, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_info, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_meta, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_bitmap_of_writable, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_remove_export, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup_epoll, kit_teardown),
        cmocka_unit_test_setup_teardown(test_meta, setup_epoll, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
