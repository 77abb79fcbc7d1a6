/* SPDX-License-Identifier: MIT */
/*
 * PCI and PCI Express functions, their configuration space, BARs and buses.
 * PCI Local Bus 3.0 chapter 6, PCI Express Base 3.0 chapter 7.
 *
 * A function's configuration space is bytes, with masks for what a guest may write and what it
 * clears by writing ones. Config writes go through pci_config_write(), which applies the masks,
 * moves BARs, updates decode bits, MSI and MSI-X, and calls the type's hook.
 *
 * Machine state (machine lock held), but for MSI-X delivery, which any thread may do.
 */
#ifndef FERRY_PCI_PCI_H
#define FERRY_PCI_PCI_H

#include "device/device.h"
#include "mem/address_space.h"

struct vmstate;

#define PCI_CONFIG_SIZE           256
#define PCIE_CONFIG_SIZE          4096
#define PCI_BAR_COUNT             6
#define PCI_ROM_BAR               6 /* index of the expansion ROM among struct pci_device's BARs */
#define PCI_DEVFN(slot, function) (((slot) << 3) | (function))
#define PCI_SLOT(devfn)           ((devfn) >> 3)
#define PCI_FUNC(devfn)           ((devfn)&7)
#define PCI_BAR_UNMAPPED          UINT64_MAX

struct msix;
struct msi;
struct pci_bus;
struct pci_device;

struct pci_bar {
    struct mem_region *region; /* NULL: no such BAR */
    uint64_t size;
    bool is_io, is_64bit, prefetchable;
    uint64_t address;          /* where it is mapped, or PCI_BAR_UNMAPPED */
    const char *size_property; /* by which the user chooses the size, or NULL; for messages */
};

/* What a type tells its parent pci_device_type (device_type.class). */
struct pci_device_class {
    uint16_t vendor_id, device_id;
    uint8_t revision;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
    uint16_t subsystem_vendor_id, subsystem_id;
    bool is_express; /* PCIe capability when on an express bus */
    bool is_bridge, is_host_bridge;
    /* After masks and BARs have been applied; or NULL. */
    void (*config_written)(struct pci_device *pci, uint32_t offset, unsigned size);
    /* Before the bytes are read; or NULL. */
    void (*config_read)(struct pci_device *pci, uint32_t offset, unsigned size);
};

struct pci_device {
    struct device dev;
    /* properties */
    int32_t addr; /* slot and function; -1: first free slot, which it then is */
    bool multifunction;
    char *romfile;
    uint32_t rombar;
    /* constant after realize */
    const struct pci_device_class *class;
    struct pci_bus *bus;
    uint8_t devfn;
    bool takes_any; /* addr was not given */
    uint32_t config_size;
    uint8_t express_capability; /* offset, or 0 */
    /* machine state; of the arrays, config_size bytes are in use */
    uint8_t config[PCIE_CONFIG_SIZE];
    uint8_t writable[PCIE_CONFIG_SIZE];       /* bits a guest may write */
    uint8_t clear_on_write[PCIE_CONFIG_SIZE]; /* bits a guest clears by writing ones */
    struct pci_bar bar[PCI_BAR_COUNT + 1];
    struct mem_region rom;
    struct mem_region bus_master; /* container of what its DMA sees, empty while BME is off */
    struct mem_region bus_master_alias;
    struct address_space *dma_space; /* address space of this function's DMA */
    struct msi *msi;
    struct msix *msix;
    uint8_t irq_level; /* INTx as the device drives it */
    bool irq_asserted; /* INTx as the bus sees it: not with interrupts disabled */
    unsigned irq_line; /* of the root bus, while asserted */
    /* where the next capabilities go */
    uint16_t next_capability, next_extended_capability, last_extended_capability;
};

extern const struct device_type pci_device_type; /* abstract; properties addr, multifunction, … */
extern const struct vmstate pci_device_vmstate;  /* for a type's own table, by VMSTATE_SUB */

static inline struct pci_device *pci_device(struct device *dev)
{
    return (struct pci_device *)dev;
}

/* ---- for device types, in realize ------------------------------------------------------------ */

/* region's size is a power of 2: at least 16 bytes (memory) or 4 (I/O). */
void pci_register_bar(struct pci_device *pci, unsigned index, struct mem_region *region, bool is_io,
                      bool is_64bit, bool prefetchable);
/* Takes all BARs out of the memory map, for good. A type's unrealize calls it before it destroys
 * the regions. */
void pci_unmap_bars(struct pci_device *pci);
/* Appends a capability of size bytes (with its 2-byte header) and returns its offset. */
uint8_t pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size);
uint16_t pcie_add_extended_capability(struct pci_device *pci, uint16_t id, uint8_t version,
                                      unsigned size);
/* The PCI Express capability, if the function is on an express bus; else nothing. Called for types
 * with is_express. */
void pcie_add_capability(struct pci_device *pci);
/* INTx; pin is set by pci_set_interrupt_pin(1..4) in realize. */
void pci_set_interrupt_pin(struct pci_device *pci, unsigned pin);
void pci_set_irq(struct pci_device *pci, int level);
bool pci_bus_master_enabled(const struct pci_device *pci);

/* Config access by the host bridge; size 1, 2, 4 within one doubleword. */
uint32_t pci_config_read(struct pci_device *pci, uint32_t offset, unsigned size);
void pci_config_write(struct pci_device *pci, uint32_t offset, uint32_t value, unsigned size);

/* ---- buses ---------------------------------------------------------------------------------- */

/* Where INTx pin (0..3) of a function comes out: the host bridge's lines. */
struct pci_bus_ops {
    /* Maps device and pin to one of the bus's interrupt lines. */
    unsigned (*map_irq)(struct pci_bus *bus, uint8_t devfn, unsigned pin);
    void (*set_irq)(void *opaque, unsigned line, int level);
};

struct pci_bus {
    struct bus bus;
    /* constant */
    const struct pci_bus_ops *ops;
    void *opaque;
    struct pci_device *bridge;      /* NULL: root bus */
    struct mem_region *memory, *io; /* containers where BARs are mapped */
    bool is_express;
    uint8_t first_slot; /* first slot that is handed out */
    unsigned irq_lines;
    /* machine state */
    uint8_t number;
    struct pci_device *function[256]; /* by devfn */
    unsigned irq_count[32];           /* how many functions assert each line */
};

extern const struct bus_type pci_bus_type;
extern const struct bus_type pcie_bus_type; /* of the same kind, "PCI": it takes the same devices */

/* name: "pci.0", "pcie.0" */
void pci_root_bus_init(struct pci_bus *bus, struct device *host_bridge, const char *name,
                       bool is_express, struct mem_region *memory, struct mem_region *io,
                       const struct pci_bus_ops *ops, void *opaque, unsigned irq_lines);
/* The function at bus number, devfn, or NULL. */
struct pci_device *pci_find(struct pci_bus *root, uint8_t bus, uint8_t devfn);
struct pci_bus *pci_root_bus(void); /* of the machine, or NULL */
/* What -device's bus= and addr= would say: "0000:00:03.0", to be freed. */
char *pci_address_text(const struct device *dev);

/* ---- host side access ------------------------------------------------------------------------ */

/* Configuration mechanism 1 (PCI 3.0, 3.2.2.3.2): ports 0xcf8 and 0xcfc. */
struct pci_mechanism1 {
    struct mem_region address_port, data_port;
    struct pci_bus *root;
    uint32_t address;
};
void pci_mechanism1_init(struct pci_mechanism1 *m, struct pci_bus *root, struct mem_region *io);
void pci_mechanism1_destroy(struct pci_mechanism1 *m, struct mem_region *io);
/* Enhanced configuration (PCIe 7.2.2): 1 MiB a bus. */
struct pci_ecam {
    struct mem_region region;
    struct pci_bus *root;
    unsigned buses;
};
void pci_ecam_init(struct pci_ecam *ecam, struct pci_bus *root, unsigned buses);
void pci_ecam_destroy(struct pci_ecam *ecam); /* out of the memory map */

/* What firmware would do: sizes and places every BAR (I/O from io_base up, memory in
 * [mem_base, mem_end), 64-bit prefetchable in [mem64_base, mem64_end)), sets interrupt lines by
 * irq_of_pin(slot, pin 1..4) and decode bits. */
struct pci_assignment {
    uint64_t io_base, io_end, mem_base, mem_end, mem64_base, mem64_end;
    uint8_t (*interrupt_line)(void *opaque, struct pci_device *pci, unsigned pin);
    void *opaque;
};
bool pci_assign_resources(struct pci_bus *root, const struct pci_assignment *a,
                          struct error **errp);

#endif
