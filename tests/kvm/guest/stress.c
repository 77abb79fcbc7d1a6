/* SPDX-License-Identifier: MIT */
/*
 * Endless guests, for tests that reset, stop and kill the VMM under them.
 *
 * mode=2: random writes and reads with `depth` in flight. A block is written as a pattern of its
 * number and a generation. Outside the image, at LEDGER, which no reset of the machine clears, stand
 * for each block the generation last given to the disk and the last one the disk said it has; after
 * a reset every block must hold a generation between the two, in all its words.
 * Serial: "BOOT n" when the driver is up, "CHECKED n" when the disk has been read, then a "." each
 * 1000 requests. resets=N: after each N requests the guest resets the machine itself with requests in
 * flight, by another means each time, and after `boots` boots it ends.
 * errors=1: requests may fail; each status that changes is told as "ERROR" or "OK" on a line.
 *
 * mode=3: writes garbage to I/O ports, memory-mapped registers, PCI configuration and queues, with
 * requests in flight. What becomes of the guest is its own business. seed=: of the first boot.
 */
#include "guest.h"

#define BLOCK      4096
#define DEPTH_MAX  64
#define VECTOR     0x40
#define MAGIC      0x6c656467
#define BLOCKS_MAX 65536

struct ledger {
    uint32_t magic, boots;
    uint64_t random;
    struct {
        uint32_t issued, done;
    } block[BLOCKS_MAX];
};

#define LEDGER ((struct ledger *)(32ull << 20))

static uint8_t buffer[DEPTH_MAX][BLOCK] __attribute__((aligned(4096)));
static struct disk disk;
static uint64_t blocks;

static uint32_t random(void)
{
    uint64_t x = LEDGER->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    LEDGER->random = x;
    return x >> 16;
}

/* The first word is the generation; 0 is a block nobody wrote. */
static uint64_t pattern(uint64_t block, uint32_t generation, unsigned word)
{
    if (word == 0 || generation == 0) {
        return generation;
    }
    return ((uint64_t)generation << 32 ^ block << 12 ^ word) * 0x9e3779b97f4a7c15ull;
}

static void fill(unsigned slot, uint64_t block, uint32_t generation)
{
    uint64_t *p = (uint64_t *)buffer[slot];

    for (unsigned i = 0; i < BLOCK / 8; i++) {
        p[i] = pattern(block, generation, i);
    }
}

static void check(unsigned slot, uint64_t block)
{
    const uint64_t *p = (const uint64_t *)buffer[slot];
    uint32_t generation = p[0];

    if (p[0] != generation || generation < LEDGER->block[block].done ||
        generation > LEDGER->block[block].issued) {
        print("block ");
        print_number(block);
        print(" holds generation ");
        print_number(p[0]);
        print(" of ");
        print_number(LEDGER->block[block].done);
        print(" to ");
        print_number(LEDGER->block[block].issued);
        print("\n");
        fail("a write is lost");
    }
    for (unsigned i = 1; i < BLOCK / 8; i++) {
        if (p[i] != pattern(block, generation, i)) {
            fail("a block is torn");
        }
    }
}

/* ---- resets --------------------------------------------------------------------------------- */

static void reset_machine(unsigned how)
{
    switch (how % 4) {
    case 0: /* asking again and again is one reset */
        for (unsigned i = 0; i < 2000000; i++) {
            outb(0xcf9, 2);
            outb(0xcf9, 6);
        }
        break;
    case 1:
        outb(0x64, 0xfe);
        break;
    case 2:
        outb(0x92, 1);
        break;
    case 3: /* triple fault: no gate is left for #UD, #NP and #DF */
        for (unsigned i = 0; i < sizeof(idt); i++) {
            ((volatile uint8_t *)idt)[i] = 0;
        }
        halt();
        break;
    }
    for (uint64_t spins = 0; spins < 2000000000ull; spins++) {
        pause();
    }
    fail("the machine was not reset");
}

/* ---- endless I/O ---------------------------------------------------------------------------- */

static uint32_t in_flight[BLOCKS_MAX / 32];
static struct {
    uint64_t block;
    uint32_t generation; /* 0: a read */
} request[DEPTH_MAX];

static void submit(unsigned slot, uint64_t block, bool is_write)
{
    in_flight[block / 32] |= 1u << block % 32;
    request[slot].block = block;
    request[slot].generation = 0;
    if (is_write) {
        uint32_t generation = ++LEDGER->block[block].issued;
        request[slot].generation = generation;
        fill(slot, block, generation);
    } else {
        *(uint64_t *)buffer[slot] = ~0ull; /* must be overwritten */
    }
    disk_submit(slot, is_write, block * (BLOCK / 512), buffer[slot], BLOCK);
}

static void submit_random(unsigned slot)
{
    uint64_t block;

    do {
        block = random() % blocks;
    } while (in_flight[block / 32] & 1u << block % 32);
    submit(slot, block, random() & 1);
}

static void finished(unsigned slot, bool ok, bool errors)
{
    static bool was_ok = true;
    uint64_t block = request[slot].block;

    in_flight[block / 32] &= ~(1u << block % 32);
    if (ok != was_ok && errors) {
        print(ok ? "OK\n" : "ERROR\n");
    } else if (!ok && !errors) {
        fail("the device reports an I/O error");
    }
    was_ok = ok;
    if (!ok) {
        return;
    }
    if (request[slot].generation) {
        LEDGER->block[block].done = request[slot].generation;
    } else {
        check(slot, block);
    }
}

static int wait_done(bool *ok)
{
    uint64_t spins = 0;
    int slot;

    while ((slot = disk_done(&disk, ok)) < 0) {
        pause();
        if (++spins > 20000000000ull) {
            fail("a request was never completed");
        }
    }
    return slot;
}

static void read_all(unsigned depth, bool errors)
{
    uint64_t next = 0, done = 0;
    bool ok;

    for (unsigned slot = 0; slot < depth && next < blocks; slot++) {
        submit(slot, next++, false);
    }
    disk_kick(&disk);
    while (done < blocks) {
        int slot = wait_done(&ok);

        finished(slot, ok, errors);
        done++;
        if (next < blocks) {
            submit(slot, next++, false);
            disk_kick(&disk);
        }
    }
}

static void open_disk(unsigned depth)
{
    set_vector(VECTOR, irq_entry);
    if (depth < 1 || depth > DEPTH_MAX || !disk_open(&disk, depth, VECTOR)) {
        fail("no usable virtio-blk disk");
    }
    blocks = disk.sectors / (BLOCK / 512);
    if (blocks > BLOCKS_MAX) {
        blocks = BLOCKS_MAX;
    }
    if (blocks < 2 * depth) {
        fail("the disk is too small");
    }
}

static void first_boot(void)
{
    if (LEDGER->magic != MAGIC) {
        for (unsigned i = 0; i < BLOCKS_MAX; i++) {
            LEDGER->block[i].issued = LEDGER->block[i].done = 0;
        }
        LEDGER->boots = 0;
        LEDGER->random = option("seed", 1) * 0x9e3779b97f4a7c15ull | 1;
        LEDGER->magic = MAGIC;
    }
    LEDGER->boots++;
    print("BOOT ");
    print_number(LEDGER->boots);
    print("\n");
}

_Noreturn void endless_io(void)
{
    unsigned depth = option("depth", 32);
    uint64_t resets = option("resets", 0), boots = option("boots", 0), count = 0;
    bool errors = option("errors", 0), ok;

    open_disk(depth);
    first_boot();
    read_all(depth, errors);
    print("CHECKED ");
    print_number(LEDGER->boots);
    print("\n");
    if (boots && LEDGER->boots >= boots) {
        finish(0x10);
    }
    for (unsigned slot = 0; slot < depth; slot++) {
        submit_random(slot);
    }
    disk_kick(&disk);
    for (;;) {
        int slot = wait_done(&ok);

        finished(slot, ok, errors);
        submit_random(slot);
        disk_kick(&disk);
        if (++count % 1000 == 0) {
            print(".");
        }
        if (count == resets) {
            print("RESET\n");
            reset_machine(LEDGER->boots);
        }
    }
}

/* ---- garbage -------------------------------------------------------------------------------- */

/* Values that are more telling than random ones. */
static uint32_t value(void)
{
    static const uint32_t special[] = {
        0,       1,          2,          4,          6,          7,          0xff,       0xffff,
        ~0u,     0x80000000, 0x7fffffff, 0xfee00000, 0xfec00000, 0xb0000000, 0xfff00000, 0xe0000,
        0xa0000, 0x100000,   0x2000000,  0xfebf0000, 0xc000,     0xcf8,
    };
    uint32_t r = random();

    switch (r & 3) {
    case 0:
        return special[(r >> 2) % (sizeof(special) / sizeof(special[0]))];
    case 1:
        return 1u << (r >> 2) % 32;
    default:
        return random();
    }
}

/* The ports that matter, and all others. Not the serial port, by which the guest shows its life. */
static uint16_t port(void)
{
    static const uint16_t first[] = {0,     0x20,  0x40,   0x60,   0x70,   0x80,   0xa0,  0xb2,
                                     0xc0,  0xcf8, 0x4d0,  0x510,  0x600,  0x620,  0x700, 0x1f0,
                                     0x3f0, 0x2f8, 0xc000, 0xc040, 0xae00, 0x5658, 0x402, 0xe9};
    uint32_t r = random();
    uint16_t p = r & 1 ? r >> 8 : first[(r >> 1 & 127) % 24] + (r >> 8) % 32;

    return p >= 0x3f0 && p <= 0x3ff ? 0x80 : p;
}

static void port_garbage(void)
{
    uint16_t p = port();
    uint32_t v = value();

    switch (random() % 6) {
    case 0:
        outb(p, v);
        break;
    case 1:
        __asm__ volatile("outw %0, %1" : : "a"((uint16_t)v), "Nd"(p));
        break;
    case 2:
        outl(p, v);
        break;
    case 3:
        inb(p);
        break;
    case 4:
        inl(p);
        break;
    case 5: { /* rep outsb */
        const void *from = buffer[0];
        uint64_t n = random() % 64;
        __asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(p) : "memory");
        break;
    }
    }
}

static void memory_garbage(void)
{
    static const uint32_t first[] = {0xfee00000, 0xfec00000, 0xfed00000, 0xfed1c000,
                                     0xb0000000, 0xa0000,    0xc0000,    0xfff00000};
    uint32_t r = random();
    uint64_t address = first[r & 7] + (r >> 3) % 0x4000;

    if (random() % 2) {
        unsigned devfn = random() % 8 * 8, index = random() % 6;
        uint32_t low = pci_read(random() % 4 ? devfn : 0xf8 | random() % 8, 0x10 + index * 4);

        if (low & 1 || low < 0x4000000) {
            return; /* I/O, none, or the guest's own memory */
        }
        address = (low & ~15u) + random() % 0x4000;
    } else if ((r & 7) < 1 && (address & 0xfff) >= 0x300 && (address & 0xfff) < 0x400) {
        return; /* INIT to itself is not interesting, and costs a boot */
    }
    address &= 0xfffffffc | random() % 4;
    switch (random() % 5) {
    case 0:
        *(volatile uint8_t *)address = value();
        break;
    case 1:
        *(volatile uint16_t *)address = value();
        break;
    case 2:
        *(volatile uint32_t *)address = value();
        break;
    case 3:
        *(volatile uint64_t *)address = (uint64_t)value() << 32 | value();
        break;
    case 4:
        (void)*(volatile uint32_t *)address;
        break;
    }
}

static void config_garbage(void)
{
    unsigned devfn = random() % 3   ? random() % 8 * 8
                     : random() % 4 ? 0xf8 | random() % 4
                                    : random();
    unsigned offset = random() % 3 ? random() % 0x48 : random() % 256;

    if (devfn > 255) {
        devfn &= 255;
    }
    pci_write(devfn, offset, value());
}

/* Descriptors, indices and requests that no driver makes. */
static void queue_garbage(void)
{
    unsigned slot = random() % disk.depth;
    static const uint64_t where[] = {0,          0xa0000,    0xf0000,    0x3ffffff, 0x4000000,
                                     0xfee00000, 0xfebf0000, 0xb0000000, ~0ull,     1ull << 40};
    uint32_t r = random();

    disk_submit(slot, r & 1, r & 2 ? value() : random() % (disk.sectors + 8),
                (void *)(r & 12 ? (uint64_t)buffer[slot] : where[r / 16 % 10]),
                r & 48 ? 512 * (1 + r / 64 % 8) : value());
    if (r % 16 == 5) {
        disk_spoil(value(), value());
    }
    disk_kick(&disk);
}

_Noreturn void garbage(void)
{
    open_disk(32);
    first_boot();
    for (uint64_t n = 0;; n++) {
        uint32_t r = random() % 64;

        if (r < 24) {
            port_garbage();
        } else if (r < 44) {
            memory_garbage();
        } else if (r < 52) {
            queue_garbage();
        } else if (r < 58) {
            config_garbage();
        } else if (r == 58) {
            if (!disk_open(&disk, 32, VECTOR)) {
                print("no disk\n");
                reset_machine(0);
            }
        }
        if (n % 256 == 0) {
            print(".");
        }
    }
}
