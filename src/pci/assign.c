/* SPDX-License-Identifier: MIT */
/*
 * What firmware does before an operating system starts: places BARs, largest first so that natural
 * alignment leaves no holes, enters interrupt lines, and turns decoding on.
 *
 * 64-bit prefetchable BARs go above 4 GiB where the machine has a window there and they fit;
 * everything else below. Functions behind bridges are left to the guest.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/range.h"
#include "pci/internal.h"

struct placement {
    struct pci_device *pci;
    unsigned index;
};

struct window {
    uint64_t next, end;
};

static int compare_size(const void *a, const void *b)
{
    const struct placement *x = a, *y = b;
    uint64_t sx = x->pci->bar[x->index].size, sy = y->pci->bar[y->index].size;

    if (sx != sy) {
        return sx < sy ? 1 : -1;
    }
    if (x->pci->devfn != y->pci->devfn) {
        return x->pci->devfn < y->pci->devfn ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

static bool take(struct window *w, uint64_t size, uint64_t *address)
{
    uint64_t at = align_up(w->next, size);

    if (at < w->next || !range_fits(at, size, w->end)) {
        return false;
    }
    *address = at;
    w->next = at + size;
    return true;
}

/* What helps where a BAR does not fit. */
static char *remedy(const struct pci_bar *bar)
{
    return bar->size_property ? xasprintf("make %s= smaller", bar->size_property)
                              : xstrdup("use fewer devices");
}

static bool place(const struct placement *p, struct window *io, struct window *mem,
                  struct window *mem64, struct error **errp)
{
    struct pci_device *pci = p->pci;
    const struct pci_bar *bar = &pci->bar[p->index];
    uint32_t reg = p->index == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + p->index * 4;
    uint64_t address;

    bool done = bar->is_io
                    ? take(io, bar->size, &address)
                    : (bar->is_64bit && bar->prefetchable && take(mem64, bar->size, &address)) ||
                          take(mem, bar->size, &address);
    if (!done) {
        autofree char *help = remedy(bar);

        error_set(errp, "PCI: no room for BAR %u (%" PRIu64 " KiB) of %s in slot %d; %s", p->index,
                  bar->size / KiB, pci->dev.type->name, PCI_SLOT(pci->devfn), help);
        return false;
    }
    pci_config_write(pci, reg, (uint32_t)address, 4);
    if (bar->is_64bit) {
        pci_config_write(pci, reg + 4, (uint32_t)(address >> 32), 4);
    }
    return true;
}

bool pci_assign_resources(struct pci_bus *root, const struct pci_assignment *a, struct error **errp)
{
    autofree struct placement *list =
        xcalloc(ARRAY_SIZE(root->function) * (PCI_BAR_COUNT + 1), sizeof(*list));
    struct window io = {a->io_base, a->io_end};
    struct window mem = {a->mem_base, a->mem_end};
    struct window mem64 = {a->mem64_base, a->mem64_end};
    unsigned count = 0;

    mem_transaction_begin();
    for (unsigned devfn = 0; devfn < ARRAY_SIZE(root->function); devfn++) {
        struct pci_device *pci = root->function[devfn];
        for (unsigned i = 0; pci && i <= PCI_ROM_BAR; i++) {
            if (pci->bar[i].region) {
                list[count++] = (struct placement){pci, i};
            }
        }
        if (pci) {
            uint16_t command = pci_command(pci);
            pci_config_write(pci, PCI_COMMAND,
                             command & (uint16_t) ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY), 2);
        }
    }
    qsort(list, count, sizeof(*list), compare_size);
    bool ok = true;
    for (unsigned i = 0; i < count && ok; i++) {
        ok = place(&list[i], &io, &mem, &mem64, errp);
    }
    for (unsigned devfn = 0; devfn < ARRAY_SIZE(root->function) && ok; devfn++) {
        struct pci_device *pci = root->function[devfn];
        if (!pci) {
            continue;
        }
        uint8_t pin = pci->config[PCI_INTERRUPT_PIN];
        if (pin && a->interrupt_line) {
            pci_config_write(pci, PCI_INTERRUPT_LINE, a->interrupt_line(a->opaque, pci, pin), 1);
        }
        pci_config_write(pci, PCI_COMMAND, pci_command(pci) | PCI_COMMAND_IO | PCI_COMMAND_MEMORY,
                         2);
    }
    mem_transaction_commit();
    return ok;
}
