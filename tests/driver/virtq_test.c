/* SPDX-License-Identifier: MIT */
/*
 * The ring code alone, one call at a time: what a device would see between two accesses of the
 * driver. Whole requests, and hostile ones, are in blk_test and ring_test.
 */
#include <string.h>

#include "cm.h"
#include "hw/virtio/virtq.h"
#include "vdriver.h"

static struct vqueue q;
static struct virtq vq;
static struct virtq_element element;

static int setup(void **state)
{
    rig_init(true);
    vqueue_alloc(&q, 8);
    vq = (struct virtq){
        .as = address_space_memory,
        .size = 8,
        .desc_address = q.at.desc,
        .avail_address = q.at.avail,
        .used_address = q.at.used,
    };
    assert_true(virtq_start(&vq));
    virtq_element_init(&element);
    return 0;
}

static int teardown(void **state)
{
    virtq_stop(&vq);
    virtq_element_destroy(&element);
    rig_destroy();
    return 0;
}

static void publish(void)
{
    uint64_t data = guest_alloc(64, 64);

    vqueue_set_chain(&q, 0, (struct buffer[]){{data, 24, false}, {data + 24, 40, true}}, 2);
    vqueue_publish(&q, 0);
}

static void test_pop_push(void **state)
{
    uint32_t head, written;

    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_EMPTY);
    assert_false(virtq_has_work(&vq));
    publish();
    assert_true(virtq_has_work(&vq));
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
    assert_false(virtq_has_work(&vq));
    assert_int_equal(element.out_count, 1);
    assert_int_equal(element.in_count, 1);
    assert_int_equal(element.out_bytes, 24);
    assert_int_equal(element.in_bytes, 40);
    assert_int_not_equal(element.id, 0);
    assert_int_equal(vq.in_flight, 1);
    /* Not visible before it is flushed. */
    virtq_push(&vq, &element, 7);
    assert_int_equal(vqueue_used_index(&q), 0);
    assert_true(virtq_flush(&vq));
    assert_true(vqueue_take_used(&q, &head, &written));
    assert_int_equal(head, 0);
    assert_int_equal(written, 7);
    assert_int_equal(vq.in_flight, 0);
    assert_false(virtq_flush(&vq)); /* nothing new */
}

/* A chain that comes after the last look and before doorbells are on again must not be missed. */
static void test_doorbell_race(void **state)
{
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        vq.event_idx = q.event_idx = event_idx;
        virtq_disable_doorbell(&vq);
        assert_int_equal(virtq_pop(&vq, &element), VIRTQ_EMPTY);
        q.kicked = q.avail_index;
        publish();
        assert_false(vqueue_wants_kick(&q));
        assert_true(virtq_enable_doorbell(&vq));
        assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
        virtq_discard(&vq, &element);
        /* And one that comes later rings. */
        assert_false(virtq_enable_doorbell(&vq));
        q.kicked = q.avail_index;
        publish();
        assert_true(vqueue_wants_kick(&q));
        assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
        virtq_discard(&vq, &element);
    }
}

static bool push_one(void)
{
    publish();
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
    virtq_push(&vq, &element, 1);
    return virtq_flush(&vq);
}

static void test_interrupt_suppression(void **state)
{
    vqueue_set_avail_flags(&q, VRING_AVAIL_F_NO_INTERRUPT);
    assert_false(push_one());
    vqueue_set_avail_flags(&q, 0);
    assert_true(push_one());
    /* With the event index the flags mean nothing. */
    vq.event_idx = true;
    vqueue_set_avail_flags(&q, VRING_AVAIL_F_NO_INTERRUPT);
    vqueue_set_used_event(&q, 0);
    assert_true(push_one()); /* the first always: what the driver knew is not known */
    assert_false(push_one());
    vqueue_set_used_event(&q, 4);
    assert_true(push_one()); /* the fifth: index 4 is passed */
    assert_false(push_one());
    /* Several at once that pass it. */
    vqueue_set_used_event(&q, 7);
    for (unsigned i = 0; i < 4; i++) {
        publish();
        assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
        virtq_push(&vq, &element, 1);
    }
    assert_true(virtq_flush(&vq));
}

/* What was published is seen at once; the interrupt for it comes with the flush, once. */
static void test_publish(void **state)
{
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        uint16_t base = vqueue_used_index(&q);
        vq.event_idx = event_idx;
        vqueue_set_used_event(&q, base); /* for the first of the two */
        for (unsigned i = 0; i < 2; i++) {
            publish();
            assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
            virtq_push(&vq, &element, 1);
            assert_int_equal(vqueue_used_index(&q), base + i);
            virtq_publish(&vq);
            assert_int_equal(vqueue_used_index(&q), base + i + 1);
        }
        virtq_publish(&vq);
        assert_true(virtq_flush(&vq));
        assert_false(virtq_flush(&vq));
    }
}

/* Indices go on from where they were: a VM that was stopped. */
static void test_stop_and_start(void **state)
{
    uint32_t head, written;

    assert_true(push_one());
    publish();
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
    virtq_stop(&vq);
    assert_false(virtq_has_work(&vq));
    assert_true(virtq_start(&vq));
    assert_int_equal(vq.in_flight, 1);
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_EMPTY);
    vq.in_flight--; /* that one is forgotten */
    assert_true(push_one());
    assert_true(vqueue_take_used(&q, &head, &written));
    assert_true(vqueue_take_used(&q, &head, &written));
    assert_false(vqueue_take_used(&q, &head, &written));
    virtq_stop(&vq);
    virtq_reset(&vq);
    assert_int_equal(vq.last_avail, 0);
    assert_ptr_equal(vq.as, address_space_memory);
    assert_false(virtq_start(&vq)); /* no size */
}

static void test_break(void **state)
{
    publish();
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
    publish();
    virtq_break(&vq, "first");
    virtq_break(&vq, "second");
    assert_string_equal(vq.broken_why, "first");
    assert_false(virtq_has_work(&vq));
    /* What is out comes back, but the ring is not written. */
    virtq_push(&vq, &element, 1);
    assert_false(virtq_flush(&vq));
    assert_int_equal(vqueue_used_index(&q), 0);
    assert_int_equal(vq.in_flight, 0);
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_BROKEN);
    assert_false(virtq_enable_doorbell(&vq));
    virtq_disable_doorbell(&vq);
    assert_int_equal(vqueue_used_flags(&q), 0);
}

/* ---- what others are told of writes --------------------------------------------------------- */

#define PAGE_OF(address) ((address) / GUEST_PAGE_SIZE)

static unsigned code_writes[RIG_RAM_SIZE / GUEST_PAGE_SIZE];

static void on_code_write(struct ram_block *block, uint64_t offset, uint64_t length)
{
    for (uint64_t page = PAGE_OF(offset); page <= PAGE_OF(offset + length - 1); page++) {
        code_writes[page]++;
    }
}

/* Since the last look the engine was told of writes to the page, and it is dirty. */
static bool is_told(uint64_t address)
{
    uint64_t bitmap[1];
    bool is_dirty = ram_dirty_fetch(rig.ram.ram, DIRTY_MIGRATION,
                                    PAGE_OF(address) * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, bitmap);
    bool is_called = code_writes[PAGE_OF(address)] != 0;

    assert_int_equal(is_dirty, is_called);
    code_writes[PAGE_OF(address)] = 0;
    return is_called;
}

static int setup_told(void **state)
{
    int ret = setup(state);

    memset(code_writes, 0, sizeof(code_writes));
    ram_set_code_hook(on_code_write);
    for (uint64_t offset = 0; offset < RIG_RAM_SIZE; offset += GUEST_PAGE_SIZE) {
        ram_code_set(rig.ram.ram, offset);
    }
    ram_dirty_log_start(rig.ram.ram, DIRTY_MIGRATION);
    return ret;
}

static int teardown_told(void **state)
{
    ram_dirty_log_stop(rig.ram.ram, DIRTY_MIGRATION);
    int ret = teardown(state);
    ram_set_code_hook(NULL);
    return ret;
}

/* A device may have written any byte of the writable buffers, however many it says. */
static void test_buffers_told(void **state)
{
    for (unsigned discards = 0; discards < 2; discards++) {
        uint64_t out = guest_alloc(GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
        uint64_t data = guest_alloc(2 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
        uint64_t status = guest_alloc(GUEST_PAGE_SIZE, GUEST_PAGE_SIZE) + 7;
        const struct buffer buffers[] = {
            {out, 16, false}, {data, 2 * GUEST_PAGE_SIZE, true}, {status, 1, true}};
        vqueue_set_chain(&q, 0, buffers, 3);
        vqueue_publish(&q, 0);
        assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
        assert_false(is_told(status));
        if (discards) {
            virtq_discard(&vq, &element); /* what had been read before the device was reset */
        } else {
            virtq_push(&vq, &element, 1);
        }
        assert_false(is_told(out));
        assert_true(is_told(data));
        assert_true(is_told(data + GUEST_PAGE_SIZE));
        assert_true(is_told(status));
    }
}

/* A chain that breaks the rules was not written to. */
static void test_broken_chain_not_told(void **state)
{
    uint64_t data = guest_alloc(GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);

    vqueue_set_desc(&q, 0, data, 16, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 99);
    vqueue_publish(&q, 0);
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_BROKEN);
    assert_false(is_told(data));
}

/* The used ring, each time that the driver may look at it; not only when it is unmapped. */
static void test_ring_told(void **state)
{
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        vq.event_idx = event_idx;
        publish();
        assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
        is_told(q.at.used);
        virtq_push(&vq, &element, 1);
        virtq_publish(&vq);
        assert_true(is_told(q.at.used));
        virtq_flush(&vq);
        assert_false(is_told(q.at.used));
        virtq_disable_doorbell(&vq);
        assert_true(is_told(q.at.used));
        virtq_enable_doorbell(&vq);
        assert_true(is_told(q.at.used));
    }
}

/* A ring of many pages: index, entry and available event each lie in one of their own. */
static void test_long_ring_told(void **state)
{
    unsigned size = VIRTQ_SIZE_MAX;
    uint32_t head = 3;

    virtq_stop(&vq);
    vqueue_alloc(&q, size);
    q.at.used = guest_alloc(4 + 8 * (uint64_t)size + 2, GUEST_PAGE_SIZE);
    vq.size = size;
    vq.event_idx = true;
    vq.desc_address = q.at.desc;
    vq.avail_address = q.at.avail;
    vq.used_address = q.at.used;
    vq.used_index = vq.published = 600;
    assert_true(virtq_start(&vq));
    uint64_t entry = q.at.used + 4 + 8 * 600, event = q.at.used + 4 + 8 * (uint64_t)size;
    assert_int_not_equal(PAGE_OF(entry), PAGE_OF(q.at.used));
    assert_int_not_equal(PAGE_OF(entry), PAGE_OF(event));
    uint64_t data = guest_alloc(64, 64);
    vqueue_set_chain(&q, head, (struct buffer[]){{data, 8, true}}, 1);
    vqueue_publish(&q, (uint16_t)head);
    assert_int_equal(virtq_pop(&vq, &element), VIRTQ_POPPED);
    virtq_disable_doorbell(&vq);
    assert_true(is_told(event));
    assert_false(is_told(q.at.used));
    virtq_push(&vq, &element, 8);
    virtq_flush(&vq);
    assert_true(is_told(q.at.used));
    assert_true(is_told(entry));
}

static void test_copies(void **state)
{
    char a[4] = "abc", b[4] = "def", c[2] = "g", to[16];
    const struct iovec iov[] = {{a, 3}, {b, 3}, {c, 1}};

    memset(to, 0, sizeof(to));
    assert_int_equal(virtq_iov_read(iov, 3, 0, to, sizeof(to)), 7);
    assert_string_equal(to, "abcdefg");
    memset(to, 0, sizeof(to));
    assert_int_equal(virtq_iov_read(iov, 3, 2, to, 3), 3);
    assert_string_equal(to, "cde");
    assert_int_equal(virtq_iov_read(iov, 3, 7, to, 1), 0);
    assert_int_equal(virtq_iov_read(iov, 3, UINT64_MAX, to, 1), 0);
    assert_int_equal(virtq_iov_read(iov, 0, 0, to, 1), 0);
    assert_int_equal(virtq_iov_write(iov, 3, 3, "WXYZ!", 5), 4);
    assert_string_equal(b, "WXY");
    assert_string_equal(c, "Z");
    assert_string_equal(a, "abc");
}

#define TEST(t)      cmocka_unit_test_setup_teardown(t, setup, teardown)
#define TOLD_TEST(t) cmocka_unit_test_setup_teardown(t, setup_told, teardown_told)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pop_push),
        TEST(test_doorbell_race),
        TEST(test_interrupt_suppression),
        TEST(test_stop_and_start),
        TEST(test_break),
        TEST(test_copies),
        TEST(test_publish),
        TOLD_TEST(test_buffers_told),
        TOLD_TEST(test_broken_chain_not_told),
        TOLD_TEST(test_ring_told),
        TOLD_TEST(test_long_ring_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
