/* SPDX-License-Identifier: MIT */
#include "machine/acpi_tables.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "machine/loader.h"
#include "machine/pc.h"

#define LAPIC_ADDRESS  0xfee00000
#define IOAPIC_ADDRESS 0xfec00000

/* Generic address, ACPI 5.2.3.2. */
enum { GAS_MEMORY = 0, GAS_IO = 1 };

/* FADT flags, ACPI table 5-35. */
enum {
    FADT_WBINVD = BIT(0),
    FADT_PROC_C1 = BIT(2),
    FADT_SLP_BUTTON = BIT(5),
    FADT_RTC_S4 = BIT(7),
    FADT_RESET_REG_SUP = BIT(10),
};

/* IAPC_BOOT_ARCH, ACPI table 5-36. */
enum { BOOT_ARCH_LEGACY = BIT(0), BOOT_ARCH_8042 = BIT(1), BOOT_ARCH_NO_VGA = BIT(2) };

/* The tables as they are laid one after the other. */
struct builder {
    uint8_t *bytes;
    size_t size, capacity;
    uint64_t base; /* guest address of bytes[0]; 0 in the first pass, which only measures */
};

static uint8_t *builder_add(struct builder *b, size_t size)
{
    if (b->size + size >= b->capacity) {
        b->capacity = (b->size + size + 1) * 2;
        b->bytes = xrealloc(b->bytes, b->capacity);
    }
    memset(b->bytes + b->size, 0, size);
    b->size += size;
    return b->bytes + b->size - size;
}

static void add8(struct builder *b, uint8_t v)
{
    *builder_add(b, 1) = v;
}

static void add16(struct builder *b, uint16_t v)
{
    store_le16(builder_add(b, 2), v);
}

static void add32(struct builder *b, uint32_t v)
{
    store_le32(builder_add(b, 4), v);
}

static void add64(struct builder *b, uint64_t v)
{
    store_le64(builder_add(b, 8), v);
}

static void add_text(struct builder *b, const char *text, size_t size)
{
    memcpy(builder_add(b, size), text, MIN(strlen(text), size));
}

static uint8_t checksum(const uint8_t *p, size_t size)
{
    uint8_t sum = 0;

    while (size--) {
        sum += *p++;
    }
    return -sum;
}

/* Table header, ACPI 5.2.6; the offset of its start. */
static size_t table_begin(struct builder *b, const char *signature, uint8_t revision)
{
    size_t start;

    builder_add(b, -b->size & 15);
    start = b->size;
    add_text(b, signature, 4);
    add32(b, 0); /* length, at the end */
    add8(b, revision);
    add8(b, 0); /* checksum, at the end */
    add_text(b, "FERRY ", 6);
    add_text(b, "FERRYVM ", 8);
    add32(b, 1);
    add_text(b, "FRRY", 4);
    add32(b, 1);
    return start;
}

static uint64_t table_end(struct builder *b, size_t start)
{
    uint8_t *table = b->bytes + start;

    store_le32(table + 4, b->size - start);
    table[9] = 0;
    table[9] = checksum(table, b->size - start);
    return b->base + start;
}

static void add_address(struct builder *b, uint8_t space, uint8_t bits, uint8_t access,
                        uint64_t address)
{
    add8(b, space);
    add8(b, bits);
    add8(b, 0);
    add8(b, access);
    add64(b, address);
}

static uint64_t build_facs(struct builder *b)
{
    size_t start;

    builder_add(b, -b->size & 63);
    start = b->size;
    add_text(b, "FACS", 4);
    add32(b, 64);
    builder_add(b, 56);
    b->bytes[start + 32] = 1; /* version */
    return b->base + start;
}

/* ACPI 5.2.9. */
static uint64_t build_fadt(struct builder *b, const struct machine *machine, uint64_t facs,
                           uint64_t dsdt)
{
    const struct pc_pm_info *pm = pc_pm_info(machine);
    size_t start = table_begin(b, "FACP", 5);
    uint32_t flags =
        FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RTC_S4 | FADT_RESET_REG_SUP;
    uint16_t boot_arch = BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA;

    add32(b, facs);
    add32(b, dsdt);
    add8(b, 0); /* reserved */
    add8(b, 0); /* preferred profile: unspecified */
    add16(b, machine->sci_gsi);
    add32(b, 0xb2); /* SMI_CMD */
    add8(b, pm->acpi_enable);
    add8(b, pm->acpi_disable);
    add8(b, 0); /* S4BIOS */
    add8(b, 0); /* P-state control */
    add32(b, pm->event_block);
    add32(b, 0);
    add32(b, pm->control_block);
    add32(b, 0);
    add32(b, 0); /* PM2 */
    add32(b, pm->timer_block);
    add32(b, pm->gpe0_block);
    add32(b, 0); /* GPE1 */
    add8(b, 4);  /* lengths */
    add8(b, 2);
    add8(b, 0);
    add8(b, 4);
    add8(b, pm->gpe0_length);
    add8(b, 0);
    add8(b, 0);      /* GPE1 base */
    add8(b, 0);      /* C-state control */
    add16(b, 0xfff); /* no C2 */
    add16(b, 0xfff); /* no C3 */
    add16(b, 0);     /* flush size and stride: WBINVD works */
    add16(b, 0);
    add8(b, 0); /* duty */
    add8(b, 0);
    add8(b, 0);    /* RTC day alarm */
    add8(b, 0);    /* RTC month alarm */
    add8(b, 0x32); /* RTC century */
    add16(b, boot_arch | (machine->i8042 ? BOOT_ARCH_8042 : 0));
    add8(b, 0);
    add32(b, flags);
    add_address(b, GAS_IO, 8, 1, 0xcf9);
    add8(b, 0x0e); /* RESET_VALUE: full reset */
    add16(b, 0);   /* ARM_BOOT_ARCH */
    add8(b, 1);    /* minor version */
    add64(b, facs);
    add64(b, dsdt);
    add_address(b, GAS_IO, 32, 2, pm->event_block);
    add_address(b, GAS_IO, 0, 0, 0);
    add_address(b, GAS_IO, 16, 2, pm->control_block);
    add_address(b, GAS_IO, 0, 0, 0);
    add_address(b, GAS_IO, 0, 0, 0);
    add_address(b, GAS_IO, 32, 3, pm->timer_block);
    add_address(b, GAS_IO, pm->gpe0_length * 8, 1, pm->gpe0_block);
    add_address(b, GAS_IO, 0, 0, 0);
    builder_add(b, 24); /* sleep control and status: not hardware-reduced */
    return table_end(b, start);
}

static void madt_override(struct builder *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    add8(b, 2);
    add8(b, 10);
    add8(b, 0); /* ISA */
    add8(b, irq);
    add32(b, gsi);
    add16(b, flags);
}

/* ACPI 5.2.12. */
static uint64_t build_madt(struct builder *b, const struct machine *machine)
{
    enum { LEVEL_HIGH = 0xd, CONFORMS = 0 };
    size_t start = table_begin(b, "APIC", 3);
    unsigned present = vcpu_count() ? vcpu_count() : machine->smp.cpus;

    add32(b, LAPIC_ADDRESS);
    add32(b, 1); /* PCAT_COMPAT: there are PICs */
    for (unsigned i = 0; i < present; i++) {
        uint32_t apic_id = vcpu_count() ? vcpu_get(i)->apic_id : i;

        if (apic_id < 255) {
            add8(b, 0);
            add8(b, 8);
            add8(b, i);
            add8(b, apic_id);
            add32(b, 1); /* enabled */
        } else {
            add8(b, 9);
            add8(b, 16);
            add16(b, 0);
            add32(b, apic_id);
            add32(b, 1);
            add32(b, i);
        }
    }
    add8(b, 1); /* IOAPIC */
    add8(b, 12);
    add8(b, 0);
    add8(b, 0);
    add32(b, IOAPIC_ADDRESS);
    add32(b, 0);
    madt_override(b, 0, 2, CONFORMS); /* the PIT is on pin 2 */
    for (unsigned irq = 3; irq < 16; irq++) {
        if (machine->sci_gsi == irq || (pc_level_irqs(machine) & BIT(irq))) {
            madt_override(b, irq, irq, LEVEL_HIGH);
        }
    }
    add8(b, 4); /* NMI on LINT1 of every LAPIC */
    add8(b, 6);
    add8(b, 0xff);
    add16(b, 0);
    add8(b, 1);
    return table_end(b, start);
}

static uint64_t build_mcfg(struct builder *b, const struct machine *machine)
{
    size_t start = table_begin(b, "MCFG", 1);

    add64(b, 0);
    add64(b, machine->ecam_base);
    add16(b, 0); /* segment */
    add8(b, 0);
    add8(b, machine->ecam_size / MiB - 1);
    add32(b, 0);
    return table_end(b, start);
}

/* AML: Name (\NAME, value), ACPI 20.2.5.1. */
static void aml_name(struct builder *b, const char *name, uint64_t value)
{
    add8(b, 0x08);
    add8(b, '\\');
    add_text(b, name, 4);
    add8(b, 0x0e);
    add64(b, value);
}

/* AML: Processor objects are obsolete; Device (\_SB.Cnnn) { _HID "ACPI0007", _UID n }. */
static void aml_processor(struct builder *b, unsigned index)
{
    static const uint8_t head[] = {0x5b, 0x82}; /* DeviceOp */
    static const char hex[] = "0123456789ABCDEF";
    char name[5] = {'C', hex[index >> 8 & 15], hex[index >> 4 & 15], hex[index & 15]};
    enum { PKG_LENGTH = 1 + 4 + 1 + 4 + 1 + 9 + 1 + 4 + 3 };

    memcpy(builder_add(b, sizeof(head)), head, sizeof(head));
    add8(b, PKG_LENGTH);
    add_text(b, name, 4);
    add8(b, 0x08);
    add_text(b, "_HID", 4);
    add8(b, 0x0d);
    add_text(b, "ACPI0007", 9);
    add8(b, 0x08);
    add_text(b, "_UID", 4);
    add8(b, 0x0b);
    add16(b, index);
}

/* What the compiled DSDT refers to as External, and the processors. */
static uint64_t build_ssdt(struct builder *b, const struct machine *machine)
{
    size_t start = table_begin(b, "SSDT", 2), scope;
    unsigned length;

    aml_name(b, "W32B", machine->pci_hole);
    aml_name(b, "W32L", machine->pci_hole_end - 1);
    aml_name(b, "W64B", machine->pci_hole64);
    aml_name(b, "W64L", machine->pci_hole64_end - 1);
    aml_name(b, "COM1", pc_has_serial(machine, 0x3f8));
    aml_name(b, "COM2", pc_has_serial(machine, 0x2f8));
    aml_name(b, "KBDP", machine->i8042);
    add8(b, 0x10); /* Scope (\_SB), four-byte package length, ACPI 20.2.4 */
    scope = b->size;
    add32(b, 0);
    add8(b, '\\');
    add_text(b, "_SB_", 4);
    for (unsigned i = 0; i < machine->smp.cpus; i++) {
        aml_processor(b, i);
    }
    length = b->size - scope;
    b->bytes[scope] = 0xc0 | (length & 15);
    b->bytes[scope + 1] = length >> 4;
    b->bytes[scope + 2] = length >> 12;
    b->bytes[scope + 3] = length >> 20;
    return table_end(b, start);
}

/* Lays out everything from b->base on; the XSDT's address. */
static uint64_t build_all(struct builder *b, const struct machine *machine, const uint8_t *dsdt,
                          size_t dsdt_size)
{
    uint64_t tables[8], facs, dsdt_address;
    unsigned count = 0;
    size_t xsdt;

    b->size = 0;
    facs = build_facs(b);
    builder_add(b, -b->size & 15);
    dsdt_address = b->base + b->size;
    memcpy(builder_add(b, dsdt_size), dsdt, dsdt_size);
    tables[count++] = build_fadt(b, machine, facs, dsdt_address);
    tables[count++] = build_madt(b, machine);
    tables[count++] = build_ssdt(b, machine);
    if (machine->ecam_size) {
        tables[count++] = build_mcfg(b, machine);
    }
    xsdt = table_begin(b, "XSDT", 1);
    for (unsigned i = 0; i < count; i++) {
        add64(b, tables[i]);
    }
    return table_end(b, xsdt);
}

/* ACPI 5.2.5.3, revision 2. */
static bool add_rsdp(uint64_t xsdt, struct error **errp)
{
    uint8_t rsdp[36] = {0};

    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "FERRY ", 6);
    rsdp[15] = 2;
    store_le32(rsdp + 20, sizeof(rsdp));
    store_le64(rsdp + 24, xsdt);
    rsdp[8] = checksum(rsdp, 20);
    rsdp[32] = checksum(rsdp, sizeof(rsdp));
    return loader_add("ACPI RSDP", ACPI_RSDP_ADDRESS, rsdp, sizeof(rsdp), sizeof(rsdp), errp);
}

bool acpi_tables_build(struct machine *machine, const uint8_t *dsdt, size_t dsdt_size,
                       struct error **errp)
{
    struct builder b = {0};
    uint64_t xsdt;
    bool ok;

    build_all(&b, machine, dsdt, dsdt_size);
    b.base = machine_e820_reserve(machine, b.size, 4096, E820_ACPI);
    if (!b.base) {
        error_set(errp,
                  "no room for %zu bytes of ACPI tables; give the guest more RAM (-m), or "
                  "-machine acpi=off",
                  b.size);
        free(b.bytes);
        return false;
    }
    xsdt = build_all(&b, machine, dsdt, dsdt_size);
    ok = loader_add("ACPI tables", b.base, b.bytes, b.size, b.size, errp) && add_rsdp(xsdt, errp);
    free(b.bytes);
    machine->acpi_rsdp = ACPI_RSDP_ADDRESS;
    return ok;
}
