/* SPDX-License-Identifier: MIT */
/*
 * QMP: types, devices, objects.
 *
 * The object tree that qom-list and qom-get show is made up from the lists of devices; paths are
 * those of QEMU:
 *
 *   /machine/peripheral/ID             devices with an id
 *   /machine/peripheral-anon/device[N] those that a user made without one
 *   /machine/unattached/device[N]      vCPUs, then the machine's own devices
 *   /objects/ID                        what -object made
 *   ID                                 short for one of them
 *   …/virtio-backend                   the disk in a virtio device
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "accel/cpu_model.h"
#include "accel/vcpu.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "device/device.h"
#include "device/iothread.h"
#include "machine/machine.h"
#include "mem/machine_lock.h"
#include "monitor/qmp_commands.h"

/* ---- types ---------------------------------------------------------------------------------- */

static const char *parent_name(const struct device_type *type)
{
    return type->parent ? type->parent->name : type->is_object ? "object" : "device";
}

json_t *qmp_qom_list_types(json_t *args, struct error **errp)
{
    const char *implements = json_string_value(json_object_get(args, "implements"));
    bool abstract = json_is_true(json_object_get(args, "abstract"));
    bool all = !implements || !strcmp(implements, "object");
    bool devices = implements && !strcmp(implements, "device");
    const struct device_type *ancestor = all || devices ? NULL : device_type_find(implements);
    json_t *list = json_array();

    if (!all && !devices && !ancestor) {
        return list; /* nothing is of that kind */
    }
    for (const struct device_type *const *t = device_types(); *t; t++) {
        if (((*t)->abstract && !abstract) || (ancestor && !device_type_is_a(*t, ancestor)) ||
            (devices && (*t)->is_object)) {
            continue;
        }
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", (*t)->name, "parent",
                                              parent_name(*t)));
    }
    return list;
}

static void append_table(json_t *list, const struct property *props)
{
    for (const struct property *p = props; p && p->name; p++) {
        json_t *info = json_pack("{s:s, s:s}", "name", p->name, "type", p->kind->name);
        if (p->description) {
            json_object_set_new(info, "description", json_string(p->description));
        }
        json_array_append_new(list, info);
    }
}

static void append_properties(json_t *list, const struct device_type *type)
{
    for (; type; type = type->parent) {
        append_table(list, type->props);
    }
}

static json_t *list_properties(json_t *args, bool objects_too, struct error **errp)
{
    const char *name = json_string_value(json_object_get(args, "typename"));
    const struct device_type *type = device_type_find(name);
    json_t *list;

    if (!type || (type->is_object && !objects_too)) {
        error_set_class(errp, ERROR_DEVICE_NOT_FOUND, "%s '%s' not found",
                        objects_too ? "Class" : "Device", name);
        return NULL;
    }
    list = json_array();
    append_properties(list, type);
    return list;
}

json_t *qmp_device_list_properties(json_t *args, struct error **errp)
{
    return list_properties(args, false, errp);
}

json_t *qmp_qom_list_properties(json_t *args, struct error **errp)
{
    return list_properties(args, true, errp);
}

/* ---- the tree ------------------------------------------------------------------------------- */

#define BACKEND "/virtio-backend"

/* What a path leads to: a device (or object), a half of one, a vCPU, or a folder. */
struct place {
    enum {
        PLACE_ROOT,
        PLACE_MACHINE,
        PLACE_PERIPHERAL,
        PLACE_ANONYMOUS,
        PLACE_UNATTACHED,
        PLACE_OBJECTS,
        PLACE_CPU,
        PLACE_DEVICE,
        PLACE_BACKEND
    } kind;
    struct device *dev;
    struct vcpu *vcpu;
};

static const struct {
    const char *path, *type;
} folders[] = {
    [PLACE_ROOT] = {"/", "container"},
    [PLACE_MACHINE] = {"/machine", NULL},
    [PLACE_PERIPHERAL] = {"/machine/peripheral", "container"},
    [PLACE_ANONYMOUS] = {"/machine/peripheral-anon", "container"},
    [PLACE_UNATTACHED] = {"/machine/unattached", "container"},
    [PLACE_OBJECTS] = {"/objects", "container"},
};

/* The folder of a device. */
static int folder_of(const struct device *dev)
{
    return dev->type->is_object ? PLACE_OBJECTS
           : dev->id            ? PLACE_PERIPHERAL
           : dev->is_peripheral ? PLACE_ANONYMOUS
                                : PLACE_UNATTACHED;
}

/* What device[n] of a folder is. */
static bool find_numbered(int folder, unsigned n, struct place *place)
{
    unsigned vcpus = folder == PLACE_UNATTACHED ? vcpu_count() : 0;

    if (n < vcpus) {
        *place = (struct place){.kind = PLACE_CPU, .vcpu = vcpu_get(n)};
        return true;
    }
    n -= vcpus;
    for (struct device *dev = device_first(); dev; dev = dev->next) {
        if (folder_of(dev) == folder && n-- == 0) {
            *place = (struct place){.kind = PLACE_DEVICE, .dev = dev};
            return true;
        }
    }
    return false;
}

static char *device_path(const struct device *dev)
{
    int folder = folder_of(dev);
    struct place place;

    if (dev->id) {
        return xasprintf("%s/%s", folders[folder].path, dev->id);
    }
    for (unsigned n = 0; find_numbered(folder, n, &place); n++) {
        if (place.dev == dev) {
            return xasprintf("%s/device[%u]", folders[folder].path, n);
        }
    }
    return xstrdup(""); /* it is not realized */
}

char *qom_path_of_disk(const struct device *dev)
{
    autofree char *path = device_path(dev);

    return xasprintf("%s%s", path, dev->type->backend_name ? BACKEND : "");
}

/* "/machine/unattached/device[7]" */
static bool find_by_number(const char *path, struct place *place)
{
    static const int numbered[] = {PLACE_ANONYMOUS, PLACE_UNATTACHED};

    for (size_t i = 0; i < ARRAY_SIZE(numbered); i++) {
        size_t length = strlen(folders[numbered[i]].path);
        unsigned n;
        int end = 0;

        if (!strncmp(path, folders[numbered[i]].path, length) &&
            sscanf(path + length, "/device[%9u]%n", &n, &end) == 1 && end && !path[length + end]) {
            return find_numbered(numbered[i], n, place);
        }
    }
    return false;
}

static bool find_device_or_folder(const char *path, struct place *place)
{
    struct device *dev = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        if (!strcmp(path, folders[i].path)) {
            *place = (struct place){.kind = (int)i};
            return true;
        }
    }
    if (find_by_number(path, place)) {
        return true;
    }
    if (!strncmp(path, "/machine/peripheral/", 20)) {
        dev = device_find(path + 20);
    } else if (!strncmp(path, "/objects/", 9)) {
        dev = object_find(path + 9);
    } else if (path[0] != '/') {
        dev = device_find(path) ? device_find(path) : object_find(path);
    }
    *place = (struct place){.kind = PLACE_DEVICE, .dev = dev};
    return dev != NULL;
}

static bool find_backend(const char *path, struct place *place)
{
    size_t length = strlen(path), suffix = strlen(BACKEND);

    if (length <= suffix || strcmp(path + length - suffix, BACKEND)) {
        return false;
    }
    autofree char *device = xstrndup(path, length - suffix);
    if (!find_device_or_folder(device, place) || place->kind != PLACE_DEVICE ||
        !place->dev->type->backend_name) {
        return false;
    }
    place->kind = PLACE_BACKEND;
    return true;
}

static bool find_place(const char *path, struct place *place, struct error **errp)
{
    if (find_backend(path, place) || find_device_or_folder(path, place)) {
        return true;
    }
    error_set_class(errp, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", path);
    return false;
}

struct device *qom_find_device(const char *path)
{
    struct place place;

    return find_place(path, &place, NULL) ? place.dev : NULL;
}

static char *place_type(const struct place *place)
{
    switch (place->kind) {
    case PLACE_DEVICE:
        return xstrdup(place->dev->type->name);
    case PLACE_BACKEND:
        return xstrdup(place->dev->type->backend_name);
    case PLACE_CPU:
        return xasprintf("%s-x86_64-cpu", cpu_model_name(place->vcpu->model));
    case PLACE_MACHINE:
        return xasprintf("%s-machine", machine_current ? machine_current->type->name : "none");
    default:
        return xstrdup(folders[place->kind].type);
    }
}

static void append_child(json_t *list, const char *name, const char *type)
{
    autofree char *child = xasprintf("child<%s>", type);

    json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "type", child));
}

static void append_numbered(json_t *list, int folder)
{
    struct place place;

    for (unsigned n = 0; find_numbered(folder, n, &place); n++) {
        autofree char *name = xasprintf("device[%u]", n);
        autofree char *type = place_type(&place);

        append_child(list, name, type);
    }
}

static void append_named(json_t *list, bool objects)
{
    for (struct device *dev = device_first(); dev; dev = dev->next) {
        if (dev->id && dev->type->is_object == objects) {
            append_child(list, dev->id, dev->type->name);
        }
    }
}

json_t *qmp_qom_list(json_t *args, struct error **errp)
{
    const char *path = json_string_value(json_object_get(args, "path"));
    struct place place;
    json_t *list;

    if (!find_place(path, &place, errp)) {
        return NULL;
    }
    list = json_pack("[{s:s, s:s}]", "name", "type", "type", "string");
    switch (place.kind) {
    case PLACE_ROOT: {
        autofree char *type = place_type(&(struct place){.kind = PLACE_MACHINE});
        append_child(list, "machine", type);
        append_child(list, "objects", "container");
        break;
    }
    case PLACE_MACHINE:
        append_child(list, "peripheral", "container");
        append_child(list, "peripheral-anon", "container");
        append_child(list, "unattached", "container");
        break;
    case PLACE_PERIPHERAL:
        append_named(list, false);
        break;
    case PLACE_ANONYMOUS:
    case PLACE_UNATTACHED:
        append_numbered(list, place.kind);
        break;
    case PLACE_OBJECTS:
        append_named(list, true);
        break;
    case PLACE_CPU:
        break;
    case PLACE_DEVICE:
        append_properties(list, place.dev->type);
        if (place.dev->type->backend_name) {
            append_child(list, &BACKEND[1], place.dev->type->backend_name);
        }
        break;
    case PLACE_BACKEND:
        append_table(list, place.dev->type->props);
        break;
    }
    return list;
}

static const struct property *find_property(const struct place *place, const char *name)
{
    if (place->kind == PLACE_DEVICE) {
        return device_type_property(place->dev->type, name);
    }
    for (const struct property *p = place->kind == PLACE_BACKEND ? place->dev->type->props : NULL;
         p && p->name; p++) {
        if (!strcmp(p->name, name)) {
            return p;
        }
    }
    return NULL;
}

/* A property's text as the JSON type that its kind stands for. */
static json_t *property_value(const struct property *p, const char *text)
{
    const char *kind = p->kind->name;
    bool negative = text[0] == '-';
    unsigned slot, function;
    uint64_t number;

    if (p->kind == &property_pci_address && sscanf(text, "%x.%x", &slot, &function) == 2) {
        return json_integer(slot << 3 | function);
    }
    if (!strcmp(kind, "bool")) {
        return json_boolean(!strcmp(text, "true"));
    }
    if ((!strncmp(kind, "uint", 4) || !strncmp(kind, "int", 3) || !strncmp(kind, "size", 4)) &&
        parse_uint(text + negative, &number)) {
        return json_integer(negative ? -(json_int_t)number : (json_int_t)number);
    }
    return json_string(text);
}

json_t *qmp_qom_get(json_t *args, struct error **errp)
{
    const char *path = json_string_value(json_object_get(args, "path"));
    const char *name = json_string_value(json_object_get(args, "property"));
    autofree char *type = NULL;
    autofree char *text = NULL;
    const struct property *p;
    struct place place;

    if (!find_place(path, &place, errp)) {
        return NULL;
    }
    type = place_type(&place);
    if (!strcmp(name, "type")) {
        return json_string(type);
    }
    p = find_property(&place, name);
    if (!p || !p->kind->print) {
        error_set(errp, "Property '%s.%s' not found", type, name);
        return NULL;
    }
    machine_lock();
    text = device_get(place.dev, name);
    machine_unlock();
    return property_value(p, text ? text : "");
}

/* ---- devices and objects -------------------------------------------------------------------- */

static json_t *add(json_t *args, struct device *(*run)(struct options *opts, struct error **errp),
                   struct error **errp)
{
    struct options *opts = options_from_json(args, errp);
    bool ok = false;

    if (opts) {
        machine_lock();
        ok = run(opts, errp) != NULL;
        machine_unlock();
    }
    options_free(opts);
    return ok ? json_object() : NULL;
}

/* No bus of this build takes devices while the guest runs; device_add() says so. */
json_t *qmp_device_add(json_t *args, struct error **errp)
{
    return add(args, device_add, errp);
}

json_t *qmp_device_del(json_t *args, struct error **errp)
{
    const char *id = json_string_value(json_object_get(args, "id"));
    struct device *dev = device_find(id);

    if (!dev) {
        error_set_class(errp, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
    } else if (dev->bus && !dev->bus->type->hotplug) {
        error_set(errp, "Bus '%s' does not support hotplugging", dev->bus->name);
    } else {
        error_set(errp, "Device '%s' does not support hotplugging", dev->type->name);
    }
    return NULL;
}

json_t *qmp_object_add(json_t *args, struct error **errp)
{
    return add(args, object_add, errp);
}

json_t *qmp_object_del(json_t *args, struct error **errp)
{
    const char *id = json_string_value(json_object_get(args, "id"));
    bool ok;

    machine_lock();
    ok = object_del(id, errp);
    machine_unlock();
    return ok ? json_object() : NULL;
}

json_t *qmp_query_iothreads(json_t *args, struct error **errp)
{
    static const char *const numbers[] = {"poll-max-ns", "poll-grow", "poll-shrink",
                                          "aio-max-batch"};
    json_t *list = json_array();

    for (struct device *dev = device_first(); dev; dev = dev->next) {
        json_t *info;

        if (!device_is_a(dev, &iothread_type)) {
            continue;
        }
        info = json_pack("{s:s, s:i}", "id", dev->id, "thread-id",
                         iothread_thread_id((struct iothread *)dev));
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
            autofree char *text = device_get(dev, numbers[i]);
            uint64_t value = 0;

            parse_uint(text ? text : "", &value);
            json_object_set_new(info, numbers[i], json_integer((json_int_t)value));
        }
        json_array_append_new(list, info);
    }
    return list;
}
