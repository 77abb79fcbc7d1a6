/* SPDX-License-Identifier: MIT */
/* What the hand-written guest's files share. No library, no SSE, everything at CPL 3. */
#ifndef FERRY_TESTS_KVM_GUEST_H
#define FERRY_TESTS_KVM_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* start.S */
extern uint64_t start_info, irq_count, pml4[512], pdpt[512];
extern uint8_t idt[256 * 16];
void irq_entry(void);
void ud_entry(void);
void spurious_entry(void);

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
/* Halts at CPL 0 until an interrupt comes. Interrupts stay on afterwards. */
static inline void halt(void)
{
    __asm__ volatile("ud2" ::: "memory");
}
static inline void pause(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* util.c */
void print(const char *text);
void print_number(uint64_t v);
_Noreturn void finish(unsigned code); /* isa-debug-exit at 0xf4 */
_Noreturn void fail(const char *why);
/* Value of "name=" in the command line, or fallback. */
uint64_t option(const char *name, uint64_t fallback);
void map_gigabyte(uint64_t address);
void set_vector(unsigned vector, void (*entry)(void));
uint32_t pci_read(unsigned devfn, unsigned offset);
void pci_write(unsigned devfn, unsigned offset, uint32_t v);
uint64_t pci_bar(unsigned devfn, unsigned index);

/* virtio_blk.c */
struct disk {
    volatile uint8_t *common, *notify;
    uint32_t notify_multiplier;
    volatile uint16_t *doorbell;
    uint64_t sectors;
    unsigned depth;
};
bool disk_open(struct disk *disk, unsigned depth, unsigned vector);
/* Submits request `slot` (0 <= slot < depth); the doorbell is rung by disk_kick(). */
void disk_submit(unsigned slot, bool is_write, uint64_t sector, void *buf, uint32_t bytes);
void disk_kick(struct disk *disk);
/* Slot of a request that is done, or -1; *ok false: the device reported an error. */
int disk_done(struct disk *disk, bool *ok);
/* Puts garbage into the rings. */
void disk_spoil(uint32_t where, uint32_t what);

/* stress.c */
_Noreturn void endless_io(void);
_Noreturn void garbage(void);

#endif
