/* SPDX-License-Identifier: MIT */
/*
 * Devices, their types and buses.
 *
 * A device type is one const struct. Types inherit: virtio-blk-pci -> virtio-pci -> pci-device ->
 * device; the device struct embeds its parent's as first member. Properties of all ancestors
 * apply. Life of a device:
 *
 *   device_new() -- properties set --> device_realize() -- runs --> device_unrealize() -> free
 *     CREATED                            REALIZED  <-- device_reset()
 *
 * realize runs from the root type to the leaf, and each may fail; then those before it are undone
 * (the one that failed cleans up after itself). unrealize runs from the leaf to the root, after the
 * devices on the device's own buses have been freed. reset runs from the root to the leaf, after
 * the devices on its buses.
 *
 * Objects of -object (iothread, …) are devices without a bus whose type says is_object.
 *
 * All of it is machine state (main thread, machine lock held), but for what a type says of its own
 * fields.
 */
#ifndef FERRY_DEVICE_DEVICE_H
#define FERRY_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "device/irq.h"
#include "device/property.h"

struct bus;
struct device;
struct options;
struct vmstate;

/* For the grouping of -device help, as QEMU groups. */
enum device_category {
    DEVICE_CATEGORY_BRIDGE,
    DEVICE_CATEGORY_USB,
    DEVICE_CATEGORY_STORAGE,
    DEVICE_CATEGORY_NETWORK,
    DEVICE_CATEGORY_INPUT,
    DEVICE_CATEGORY_DISPLAY,
    DEVICE_CATEGORY_SOUND,
    DEVICE_CATEGORY_MISC,
    DEVICE_CATEGORY_CPU,
    DEVICE_CATEGORY_COUNT,
};

struct device_type {
    const char *name;                 /* "virtio-blk-pci" */
    const char *alias;                /* another name users type, or NULL: "virtio-blk" */
    const struct device_type *parent; /* NULL: device */
    const char *description;
    enum device_category category;
    /* What the half of it is called that is no transport, for those who know it as a device of its own,
     * "virtio-backend", with the properties of the leaf type: "virtio-blk-device"; NULL: none. */
    const char *backend_name;
    const char *bus; /* kind of bus it sits on: "PCI", "ISA", "System"; NULL: none or parent's */
    size_t size;     /* of the device struct; leaf types only */
    bool abstract;   /* cannot be made */
    bool internal;   /* made by a machine only: -device refuses it */
    bool is_object;  /* made by -object */
    bool hotpluggable;
    const struct property *props; /* or NULL */
    const void *class;            /* what the parent type wants to know, e.g. pci_device_class */
    void (*init)(struct device *dev);
    bool (*realize)(struct device *dev, struct error **errp);
    void (*unrealize)(struct device *dev);
    void (*reset)(struct device *dev);
    const struct vmstate *vmstate;
};

enum device_state { DEVICE_CREATED, DEVICE_REALIZED };

struct device {
    /* constant */
    const struct device_type *type;
    /* machine state */
    char *id;           /* unique, or NULL */
    bool is_peripheral; /* the user's, by device_add() */
    struct bus *bus;
    enum device_state state;
    unsigned users;              /* of an object: what keeps object_del() from it */
    struct error *global_error;  /* of a -global; device_realize() reports it */
    struct device *next_sibling; /* on the same bus, in order of realization */
    struct device *next;         /* of all devices */
    struct bus *first_child_bus;
    /* Named inputs and outputs, for qtest and wiring. */
    struct irq *gpio_in; /* owned by the device; lines others raise */
    unsigned gpio_in_count;
    struct irq *gpio_out; /* owned by the device, connected by others */
    unsigned gpio_out_count;
};

/* A bus type: what its children need when they are plugged. */
struct bus_type {
    const char *name; /* "PCI" */
    /* Text of a device's address on the bus, to be freed; or NULL. */
    char *(*address_text)(const struct device *dev);
    void (*reset)(struct bus *bus); /* after its children */
    bool hotplug;
};

struct bus {
    const struct bus_type *type;
    char *name;            /* "pcie.0" */
    struct device *parent; /* NULL: the main system bus */
    struct device *first;  /* children */
    struct bus *next;      /* further buses of the same parent */
    bool full;             /* no place left */
};

/* ---- types ---------------------------------------------------------------------------------- */

/* NULL-terminated; given once by vmm, which sees all layers: "types are listed in one array". */
void device_types_set(const struct device_type *const *types);
const struct device_type *device_type_find(const char *name_or_alias);
bool device_type_is_a(const struct device_type *type, const struct device_type *ancestor);
const struct device_type *const *device_types(void);
/* A property of the type or of an ancestor, or NULL. */
const struct property *device_type_property(const struct device_type *type, const char *name);
/* The kind of bus it sits on, its own or an ancestor's; NULL: none. */
const char *device_type_bus(const struct device_type *type);

/* ---- devices -------------------------------------------------------------------------------- */

/* Creates a device with defaults, then those of -global. Not on a bus yet. Memory is zeroed and
 * aligned to 64 bytes. */
struct device *device_new(const struct device_type *type);
bool device_set(struct device *dev, const char *name, const char *value, struct error **errp);
/* The value as text, to be freed; NULL if there is no such property. */
char *device_get(struct device *dev, const char *name);
bool device_set_id(struct device *dev, const char *id, struct error **errp); /* copied */
/* Puts it on bus (NULL: a type without a bus) and realizes it. On failure it stays CREATED. */
bool device_realize(struct device *dev, struct bus *bus, struct error **errp);
/* Frees the devices on its buses, then undoes realize. */
void device_unrealize(struct device *dev);
void device_free(struct device *dev);       /* unrealizes first if needed; NULL is allowed */
void device_reset(struct device *dev);      /* all below, then itself */
struct device *device_find(const char *id); /* realized, no object */
struct device *object_find(const char *id); /* realized, an object */
struct device *device_first(void);          /* all realized devices and objects, by ->next */
bool device_is_a(const struct device *dev, const struct device_type *type);

/* The whole of -device TYPE,id=…,bus=…,prop=…: finds the bus, sets the properties, realizes. NULL
 * and an error on failure. Consumes nothing. "help" is the caller's. */
struct device *device_add(struct options *opts, struct error **errp);
/* As device_add() for -object: "qom-type" is the implied key. */
struct device *object_add(struct options *opts, struct error **errp);
/* From now on device_add() is a hot plug, which the type and the bus must allow. */
void devices_cold_plug_done(void);
bool object_del(const char *id, struct error **errp);

/* -global driver.prop=value */
bool device_add_global(const char *text, struct error **errp);
/* False and an error for a -global whose type or property does not exist. */
bool device_check_globals(struct error **errp);

/* Lists, in QEMU's form. */
void device_print_types(FILE *to); /* -device help */
void object_print_types(FILE *to); /* -object help */
/* -device T,help and -object T,help */
bool device_print_properties(const char *type, FILE *to, struct error **errp);

/* ---- buses ---------------------------------------------------------------------------------- */

/* name NULL: ID.N if the parent has an id, else TYPE.N, as QEMU names it. Embedded in the parent
 * device's struct. */
void bus_init(struct bus *bus, const struct bus_type *type, struct device *parent,
              const char *name);
void bus_destroy(struct bus *bus); /* children go first */
struct bus *bus_find(const char *name);
/* First bus of that kind, which is not full. */
struct bus *bus_find_kind(const char *kind);
void bus_reset(struct bus *bus); /* all devices on it, then the bus */
struct bus *system_bus(void);
/* Resets every realized device: system bus devices in order of realization, with all below. */
void devices_reset(void); /* then devices without a bus */
/* Frees all devices (process end), last made first. */
void devices_free(void);

/* Once per device: pointers to the lines stay valid until it is freed. fn gets dev as opaque. */
void device_init_gpio_in(struct device *dev, irq_fn *fn, unsigned count);
void device_init_gpio_out(struct device *dev, unsigned count);

#endif
