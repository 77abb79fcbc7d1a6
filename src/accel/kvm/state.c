/* SPDX-License-Identifier: MIT */
/* A vCPU's registers in KVM's structures <-> the neutral state. vCPU thread. */
#include <errno.h>
#include <string.h>

#include "accel/kvm/kvm.h"
#include "accel/lapic.h"
#include "accel/x86_regs.h"
#include "base/alloc.h"
#include "base/range.h"

static struct kvm_vcpu *kvm_vcpu_of(struct vcpu *vcpu)
{
    return vcpu->engine;
}

static bool fail(int ret, const char *call, struct error **errp)
{
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: %s", call);
    }
    return ret < 0;
}

/* ---- registers ------------------------------------------------------------------------------ */

static struct x86_segment segment_from_kvm(const struct kvm_segment *s)
{
    return (struct x86_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .attributes = s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 12 |
                      s->l << 13 | s->db << 14 | s->g << 15 |
                      (s->unusable ? X86_SEGMENT_UNUSABLE : 0),
    };
}

static struct kvm_segment segment_to_kvm(const struct x86_segment *s)
{
    uint32_t a = s->attributes;

    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = a & 15,
        .s = a >> 4 & 1,
        .dpl = a >> 5 & 3,
        .present = a >> 7 & 1,
        .avl = a >> 12 & 1,
        .l = a >> 13 & 1,
        .db = a >> 14 & 1,
        .g = a >> 15 & 1,
        .unusable = !(a & X86_SEGMENT_P) || a & X86_SEGMENT_UNUSABLE,
    };
}

static void get_gprs(const struct kvm_regs *r, struct x86_state *s)
{
    const uint64_t in_order[X86_GPR_COUNT] = {
        r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
        r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15,
    };

    memcpy(s->gpr, in_order, sizeof(s->gpr));
    s->rip = r->rip;
    s->rflags = r->rflags;
}

static struct kvm_regs gprs_to_kvm(const struct x86_state *s)
{
    const uint64_t *g = s->gpr;

    return (struct kvm_regs){
        .rax = g[X86_RAX],
        .rcx = g[X86_RCX],
        .rdx = g[X86_RDX],
        .rbx = g[X86_RBX],
        .rsp = g[X86_RSP],
        .rbp = g[X86_RBP],
        .rsi = g[X86_RSI],
        .rdi = g[X86_RDI],
        .r8 = g[X86_R8],
        .r9 = g[X86_R9],
        .r10 = g[X86_R10],
        .r11 = g[X86_R11],
        .r12 = g[X86_R12],
        .r13 = g[X86_R13],
        .r14 = g[X86_R14],
        .r15 = g[X86_R15],
        .rip = s->rip,
        .rflags = s->rflags,
    };
}

static void get_sregs(const struct kvm_sregs *r, struct x86_state *s)
{
    s->segment[X86_ES] = segment_from_kvm(&r->es);
    s->segment[X86_CS] = segment_from_kvm(&r->cs);
    s->segment[X86_SS] = segment_from_kvm(&r->ss);
    s->segment[X86_DS] = segment_from_kvm(&r->ds);
    s->segment[X86_FS] = segment_from_kvm(&r->fs);
    s->segment[X86_GS] = segment_from_kvm(&r->gs);
    s->segment[X86_LDTR] = segment_from_kvm(&r->ldt);
    s->segment[X86_TR] = segment_from_kvm(&r->tr);
    s->gdt = (struct x86_table){r->gdt.base, r->gdt.limit};
    s->idt = (struct x86_table){r->idt.base, r->idt.limit};
    s->cr0 = r->cr0;
    s->cr2 = r->cr2;
    s->cr3 = r->cr3;
    s->cr4 = r->cr4;
    s->cr8 = r->cr8;
    s->efer = r->efer;
    s->apic_base = r->apic_base;
}

static struct kvm_sregs sregs_to_kvm(const struct x86_state *s)
{
    struct kvm_sregs r = {
        .es = segment_to_kvm(&s->segment[X86_ES]),
        .cs = segment_to_kvm(&s->segment[X86_CS]),
        .ss = segment_to_kvm(&s->segment[X86_SS]),
        .ds = segment_to_kvm(&s->segment[X86_DS]),
        .fs = segment_to_kvm(&s->segment[X86_FS]),
        .gs = segment_to_kvm(&s->segment[X86_GS]),
        .ldt = segment_to_kvm(&s->segment[X86_LDTR]),
        .tr = segment_to_kvm(&s->segment[X86_TR]),
        .gdt = {.base = s->gdt.base, .limit = s->gdt.limit},
        .idt = {.base = s->idt.base, .limit = s->idt.limit},
        .cr0 = s->cr0,
        .cr2 = s->cr2,
        .cr3 = s->cr3,
        .cr4 = s->cr4,
        .cr8 = s->cr8,
        .efer = s->efer,
        .apic_base = s->apic_base,
    };

    /* A vector that was being injected; KVM_SET_VCPU_EVENTS repeats it with its details. */
    if (s->events.interrupt_injected && !s->events.interrupt_soft) {
        r.interrupt_bitmap[s->events.interrupt_vector / 64] |= UINT64_C(1)
                                                               << s->events.interrupt_vector % 64;
    }
    return r;
}

static bool get_registers(struct kvm_vcpu *kv, struct x86_state *s, struct error **errp)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debug;

    if (fail(kvm_ioctl(kv->fd, KVM_GET_REGS, &regs), "KVM_GET_REGS", errp) ||
        fail(kvm_ioctl(kv->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS", errp) ||
        fail(kvm_ioctl(kv->fd, KVM_GET_DEBUGREGS, &debug), "KVM_GET_DEBUGREGS", errp)) {
        return false;
    }
    get_gprs(&regs, s);
    get_sregs(&sregs, s);
    memcpy(s->dr, debug.db, sizeof(s->dr));
    s->dr6 = debug.dr6;
    s->dr7 = debug.dr7;
    return true;
}

static bool set_registers(struct kvm_vcpu *kv, const struct x86_state *s, struct error **errp)
{
    struct kvm_regs regs = gprs_to_kvm(s);
    struct kvm_sregs sregs = sregs_to_kvm(s);
    struct kvm_debugregs debug = {.dr6 = s->dr6, .dr7 = s->dr7};

    memcpy(debug.db, s->dr, sizeof(debug.db));
    return !fail(kvm_ioctl(kv->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS", errp) &&
           !fail(kvm_ioctl(kv->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS", errp) &&
           !fail(kvm_ioctl(kv->fd, KVM_SET_DEBUGREGS, &debug), "KVM_SET_DEBUGREGS", errp);
}

/* ---- FPU and extended state ------------------------------------------------------------------ */

static bool get_xsave(struct kvm_vcpu *kv, struct x86_state *s, struct error **errp)
{
    unsigned size = kv->kvm->xsave_size;
    unsigned long request = size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    struct kvm_xcrs xcrs;

    memset(s->xsave, 0, sizeof(s->xsave));
    if (fail(kvm_ioctl(kv->fd, request, s->xsave), "KVM_GET_XSAVE", errp) ||
        fail(kvm_ioctl(kv->fd, KVM_GET_XCRS, &xcrs), "KVM_GET_XCRS", errp)) {
        return false;
    }
    s->xsave_size = size;
    s->xcr0 = 1;
    for (unsigned i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++) {
        if (xcrs.xcrs[i].xcr == 0) {
            s->xcr0 = xcrs.xcrs[i].value;
        }
    }
    return true;
}

static bool set_xsave(struct kvm_vcpu *kv, const struct x86_state *s, struct error **errp)
{
    autofree uint8_t *area = xcalloc(1, MAX(kv->kvm->xsave_size, X86_XSAVE_MAX));
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};

    memcpy(area, s->xsave, MIN(s->xsave_size, X86_XSAVE_MAX));
    return !fail(kvm_ioctl(kv->fd, KVM_SET_XSAVE, area), "KVM_SET_XSAVE", errp) &&
           !fail(kvm_ioctl(kv->fd, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS", errp);
}

/* ---- events --------------------------------------------------------------------------------- */

static bool get_events(struct kvm_vcpu *kv, struct x86_state *s, struct error **errp)
{
    struct x86_events *to = &s->events;
    struct kvm_vcpu_events e = {0};

    if (fail(kvm_ioctl(kv->fd, KVM_GET_VCPU_EVENTS, &e), "KVM_GET_VCPU_EVENTS", errp)) {
        return false;
    }
    *to = (struct x86_events){
        .exception_injected = e.exception.injected,
        .exception_has_error = e.exception.has_error_code,
        .exception_vector = e.exception.nr,
        .exception_error = e.exception.error_code,
        .interrupt_injected = e.interrupt.injected,
        .interrupt_soft = e.interrupt.soft,
        .interrupt_vector = e.interrupt.nr,
        .interrupt_shadow = e.interrupt.shadow,
        .nmi_injected = e.nmi.injected,
        .nmi_pending = e.nmi.pending,
        .nmi_masked = e.nmi.masked,
        .sipi_vector = e.sipi_vector,
        .smm = e.smi.smm,
        .smi_pending = e.smi.pending,
        .smm_inside_nmi = e.smi.smm_inside_nmi,
        .smi_latched_init = e.smi.latched_init,
    };
    if (e.flags & KVM_VCPUEVENT_VALID_PAYLOAD) {
        to->exception_pending = e.exception.pending;
        to->exception_has_payload = e.exception_has_payload;
        to->exception_payload = e.exception_payload;
    }
    return true;
}

static bool set_events(struct kvm_vcpu *kv, const struct x86_state *s, struct error **errp)
{
    const struct x86_events *from = &s->events;
    struct kvm_vcpu_events e = {
        .exception = {.injected = from->exception_injected,
                      .nr = from->exception_vector,
                      .has_error_code = from->exception_has_error,
                      .error_code = from->exception_error},
        .interrupt = {.injected = from->interrupt_injected,
                      .nr = from->interrupt_vector,
                      .soft = from->interrupt_soft,
                      .shadow = from->interrupt_shadow},
        .nmi = {.injected = from->nmi_injected,
                .pending = from->nmi_pending,
                .masked = from->nmi_masked},
        .sipi_vector = from->sipi_vector,
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
    };

    if (kv->kvm->accel.irqchip != IRQCHIP_OFF) {
        e.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
    }
    if (kv->kvm->has_smm && kv->kvm->accel.irqchip != IRQCHIP_OFF) {
        e.flags |= KVM_VCPUEVENT_VALID_SMM;
        e.smi.smm = from->smm;
        e.smi.pending = from->smi_pending;
        e.smi.smm_inside_nmi = from->smm_inside_nmi;
        e.smi.latched_init = from->smi_latched_init;
    }
    if (kv->kvm->has_exception_payload) {
        e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
        e.exception.pending = from->exception_pending;
        e.exception_has_payload = from->exception_has_payload;
        e.exception_payload = from->exception_payload;
    }
    return !fail(kvm_ioctl(kv->fd, KVM_SET_VCPU_EVENTS, &e), "KVM_SET_VCPU_EVENTS", errp);
}

/* ---- LAPIC and run state, when they are the kernel's ------------------------------------------ */

static const struct {
    enum x86_mp_state neutral;
    uint32_t kvm;
} mp_states[] = {
    {X86_MP_RUNNABLE, KVM_MP_STATE_RUNNABLE},
    {X86_MP_UNINITIALIZED, KVM_MP_STATE_UNINITIALIZED},
    {X86_MP_INIT_RECEIVED, KVM_MP_STATE_INIT_RECEIVED},
    {X86_MP_HALTED, KVM_MP_STATE_HALTED},
    {X86_MP_SIPI_RECEIVED, KVM_MP_STATE_SIPI_RECEIVED},
};

static bool get_lapic(struct kvm_vcpu *kv, struct x86_state *s, struct error **errp)
{
    struct vcpu *vcpu = kv->vcpu;
    struct kvm_mp_state mp = {0};
    struct kvm_lapic_state lapic;

    if (vcpu->lapic) {
        lapic_get_state(vcpu->lapic, &s->lapic);
        s->apic_base = lapic_base(vcpu->lapic);
        s->mp_state = vcpu->halted ? X86_MP_HALTED : vcpu->mp_state;
        return true;
    }
    if (fail(kvm_ioctl(kv->fd, KVM_GET_MP_STATE, &mp), "KVM_GET_MP_STATE", errp)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(mp_states); i++) {
        if (mp_states[i].kvm == mp.mp_state) {
            s->mp_state = mp_states[i].neutral;
        }
    }
    if (kv->kvm->accel.irqchip == IRQCHIP_OFF) {
        return true;
    }
    if (fail(kvm_ioctl(kv->fd, KVM_GET_LAPIC, &lapic), "KVM_GET_LAPIC", errp)) {
        return false;
    }
    memcpy(s->lapic.regs, lapic.regs, sizeof(s->lapic.regs));
    s->lapic.timer_expires_ns = -1;
    return true;
}

static bool set_lapic(struct kvm_vcpu *kv, const struct x86_state *s, struct error **errp)
{
    struct vcpu *vcpu = kv->vcpu;
    struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};
    struct kvm_lapic_state lapic;

    if (vcpu->lapic) {
        lapic_load_base(vcpu->lapic, s->apic_base);
        lapic_set_state(vcpu->lapic, &s->lapic);
        vcpu->halted = s->mp_state == X86_MP_HALTED;
        vcpu->mp_state = vcpu->halted ? X86_MP_RUNNABLE : s->mp_state;
        return true;
    }
    if (kv->kvm->accel.irqchip == IRQCHIP_OFF) {
        return true;
    }
    memcpy(lapic.regs, s->lapic.regs, sizeof(lapic.regs));
    if (fail(kvm_ioctl(kv->fd, KVM_SET_LAPIC, &lapic), "KVM_SET_LAPIC", errp)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(mp_states); i++) {
        if (mp_states[i].neutral == s->mp_state) {
            mp.mp_state = mp_states[i].kvm;
        }
    }
    return !fail(kvm_ioctl(kv->fd, KVM_SET_MP_STATE, &mp), "KVM_SET_MP_STATE", errp);
}

/* ---- whole ---------------------------------------------------------------------------------- */

bool kvm_vcpu_get_state(struct vcpu *vcpu, struct x86_state *s, struct error **errp)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    /* The run state comes first: asking for it makes KVM take note of a pending INIT or SIPI. */
    return get_lapic(kv, s, errp) && get_registers(kv, s, errp) && get_xsave(kv, s, errp) &&
           !fail(kvm_get_msrs(kv, s), "KVM_GET_MSRS", errp) && get_events(kv, s, errp);
}

static bool set_msrs(struct kvm_vcpu *kv, const struct x86_state *s, struct error **errp)
{
    uint32_t index;
    int ret = kvm_set_msrs(kv, s, &index);

    if (ret < 0) {
        error_set(errp,
                  "-accel kvm: the host's KVM does not take the value for MSR 0x%x of vCPU %u",
                  index, kv->vcpu->index);
    }
    return ret >= 0;
}

bool kvm_vcpu_set_state(struct vcpu *vcpu, const struct x86_state *s, struct error **errp)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    /* Control registers decide which XCR0, MSRs and LAPIC mode are valid; the deadline MSR needs
     * the LAPIC's timer mode; events and run state come last, as all others disturb them. */
    if (!set_registers(kv, s, errp) || !set_xsave(kv, s, errp) || !set_lapic(kv, s, errp) ||
        !set_msrs(kv, s, errp) || !set_events(kv, s, errp)) {
        return false;
    }
    /* What the last KVM_RUN said of interrupts no longer holds. */
    kv->run->if_flag = (s->rflags & X86_RFLAGS_IF) != 0;
    kv->run->ready_for_interrupt_injection = kv->run->if_flag && !s->events.interrupt_shadow &&
                                             !s->events.interrupt_injected &&
                                             !s->events.exception_injected;
    kv->run->cr8 = s->cr8;
    kv->injected = false;
    return true;
}
