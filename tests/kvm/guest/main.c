/* SPDX-License-Identifier: MIT */
/*
 * The hand-written guest. Command line: mode=0 verify (writes a pattern over the disk, reads it
 * back), mode=1 read benchmark; depth=, count=, halt=1 (wait by hlt instead of spinning), opens=
 * (how often the driver initialises the device). mode=2 and mode=3: stress.c.
 * mode=4: endless output.
 *
 * Serial: "READY", "START", "END requests interrupts", then isa-debug-exit 0x10 for success.
 */
#include "guest.h"

#define VECTOR    0x40
#define BLOCK     4096
#define DEPTH_MAX 64

static uint8_t buffer[DEPTH_MAX][BLOCK] __attribute__((aligned(4096)));

void guest_main(void);

static uint64_t pattern(uint64_t block, unsigned word)
{
    return (block << 16 | word) * 0x9e3779b97f4a7c15ull + 1;
}

static void fill(unsigned slot, uint64_t block)
{
    uint64_t *p = (uint64_t *)buffer[slot];

    for (unsigned i = 0; i < BLOCK / 8; i++) {
        p[i] = pattern(block, i);
    }
}

static bool check(unsigned slot, uint64_t block)
{
    const uint64_t *p = (const uint64_t *)buffer[slot];

    for (unsigned i = 0; i < BLOCK / 8; i++) {
        if (p[i] != pattern(block, i)) {
            return false;
        }
    }
    return true;
}

/* Waits for a completion: by spinning, or by hlt until the interrupt count moves. */
static int wait_done(struct disk *disk, bool by_halt)
{
    uint64_t spins = 0;
    bool ok;

    for (;;) {
        uint64_t seen = *(volatile uint64_t *)&irq_count;
        int slot = disk_done(disk, &ok);

        if (slot >= 0) {
            if (!ok) {
                fail("the device reports an I/O error");
            }
            return slot;
        }
        if (by_halt && seen == *(volatile uint64_t *)&irq_count) {
            halt();
        } else {
            pause();
            if (++spins > 20000000000ull) {
                fail("a request was never completed");
            }
        }
    }
}

/* Runs count requests over the first blocks of the disk with depth in flight. */
static void run(struct disk *disk, unsigned depth, uint64_t count, uint64_t blocks, bool is_write,
                bool verify, bool by_halt)
{
    static uint64_t block_of[DEPTH_MAX];
    uint64_t issued = 0, done = 0;

    for (unsigned slot = 0; slot < depth && issued < count; slot++, issued++) {
        block_of[slot] = issued % blocks;
        if (is_write) {
            fill(slot, block_of[slot]);
        }
        disk_submit(slot, is_write, block_of[slot] * (BLOCK / 512), buffer[slot], BLOCK);
    }
    disk_kick(disk);
    while (done < count) {
        int slot = wait_done(disk, by_halt);
        bool ok, submitted = false;

        do {
            done++;
            if (verify && !is_write && !check(slot, block_of[slot])) {
                fail("a block does not hold what was written");
            }
            if (issued < count) {
                block_of[slot] = issued++ % blocks;
                if (is_write) {
                    fill(slot, block_of[slot]);
                }
                disk_submit(slot, is_write, block_of[slot] * (BLOCK / 512), buffer[slot], BLOCK);
                submitted = true;
            }
        } while ((slot = disk_done(disk, &ok)) >= 0);
        if (submitted) {
            disk_kick(disk);
        }
    }
}

void guest_main(void)
{
    unsigned depth = option("depth", 1);
    uint64_t count = option("count", 1000), blocks;
    bool by_halt = option("halt", 0);
    static struct disk disk;

    for (unsigned i = 0; i < 256; i++) {
        set_vector(i, spurious_entry);
    }
    set_vector(6, ud_entry);
    /* Switch the LAPIC on with its spurious vector. */
    *(volatile uint32_t *)0xfee000f0 = 0x1ff;
    if (option("mode", 1) == 2) {
        endless_io();
    }
    if (option("mode", 1) == 3) {
        garbage();
    }
    while (option("mode", 1) == 4) {
        print("This line comes again and again.\n");
    }
    for (uint64_t i = 0; i < option("opens", 1); i++) {
        /* Another vector each time: its interrupt route changes. */
        set_vector(VECTOR + i % 16, irq_entry);
        if (depth < 1 || depth > DEPTH_MAX || !disk_open(&disk, depth, VECTOR + i % 16)) {
            fail("no usable virtio-blk disk");
        }
    }
    blocks = disk.sectors / (BLOCK / 512);
    if (!blocks) {
        fail("the disk is empty");
    }
    print("READY\n");
    if (option("mode", 1) == 0) {
        run(&disk, depth, blocks, blocks, true, true, by_halt);
        run(&disk, depth, blocks, blocks, false, true, by_halt);
        count = 2 * blocks;
    } else {
        run(&disk, depth, 64, blocks, false, false, by_halt);
        print("START\n");
        run(&disk, depth, count, blocks, false, false, by_halt);
    }
    if (!irq_count) {
        fail("no interrupt came");
    }
    print("END ");
    print_number(count);
    print(" ");
    print_number(irq_count);
    print("\n");
    finish(0x10);
}
