/* SPDX-License-Identifier: MIT */
/*
 * Configuration mechanism 1 (PCI 3.0, 3.2.2.3.2): a doubleword at 0xcf8 names bus, device, function
 * and register; 0xcfc to 0xcff are its four bytes.
 *
 * Only a write of a whole doubleword reaches the address register; smaller ones at its ports are
 * others' (0xcf9 is the reset control of PIIX3 and ICH9).
 */
#include "base/range.h"
#include "pci/internal.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT    0xcfc

#define ENABLE   BIT(31)
#define WRITABLE 0x80fffffc

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_mechanism1 *m = opaque;

    return size == 4 ? m->address : UINT32_MAX;
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_mechanism1 *m = opaque;

    if (size == 4) {
        m->address = (uint32_t)value & WRITABLE;
    }
}

static struct pci_device *selected(const struct pci_mechanism1 *m, uint32_t *offset)
{
    if (!(m->address & ENABLE)) {
        return NULL;
    }
    *offset += m->address & 0xfc;
    return pci_find(m->root, (uint8_t)(m->address >> 16), (uint8_t)(m->address >> 8));
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    uint32_t reg = (uint32_t)offset;
    struct pci_device *pci = selected(opaque, &reg);

    return pci ? pci_config_read(pci, reg, size) : UINT32_MAX;
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    uint32_t reg = (uint32_t)offset;
    struct pci_device *pci = selected(opaque, &reg);

    if (pci) {
        pci_config_write(pci, reg, (uint32_t)value, size);
    }
}

static const struct mem_region_ops address_ops = {
    .read = address_read,
    .write = address_write,
    .valid = {.min = 1, .max = 4},
};

static const struct mem_region_ops data_ops = {
    .read = data_read,
    .write = data_write,
    .valid = {.min = 1, .max = 4, .unaligned = true},
    .impl = {.min = 1, .max = 4, .unaligned = true},
};

void pci_mechanism1_init(struct pci_mechanism1 *m, struct pci_bus *root, struct mem_region *io)
{
    *m = (struct pci_mechanism1){.root = root};
    mem_region_init_io(&m->address_port, "pci-conf-idx", 4, &address_ops, m);
    mem_region_init_io(&m->data_port, "pci-conf-data", 4, &data_ops, m);
    mem_transaction_begin();
    mem_region_add(io, ADDRESS_PORT, &m->address_port);
    mem_region_add(io, DATA_PORT, &m->data_port);
    mem_transaction_commit();
}

void pci_mechanism1_destroy(struct pci_mechanism1 *m, struct mem_region *io)
{
    mem_transaction_begin();
    mem_region_remove(io, &m->address_port);
    mem_region_remove(io, &m->data_port);
    mem_transaction_commit();
    mem_region_destroy(&m->address_port);
    mem_region_destroy(&m->data_port);
}
