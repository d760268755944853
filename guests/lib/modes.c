/* Running code in the other modes: see modes.h. */
#include "modes.h"

#define REAL_AT ((uint32_t)REAL_SEG << 4)

void real_enter(void);
extern uint8_t real_image[], real_image_end[], real_context[], real_idtr[], real_big[], real_cr0_or[];
extern uint8_t real_protected_idtr[], real_protected_gdtr[], real_vector[], real_old_cr0[], real_stubs[];

struct real_setup real_setup;
uint32_t real_end_cr0;

/* A label of the image, where it was copied to. */
static void *low(const uint8_t *label)
{
    return (void *)(REAL_AT + (uint32_t)(label - real_image));
}

static void setup_default(void)
{
    real_setup = (struct real_setup){ .idtr = { 0x3ff, 0 } };
}

void ivt_set(unsigned vector, uint16_t seg, uint16_t ofs)
{
    poke(vector * 4, (uint32_t)seg << 16 | ofs);
}

void modes_init(void)
{
    static bool done;
    struct table_register gdtr = { sizeof guest_gdt - 1, address_of(guest_gdt) };
    struct table_register idtr = { sizeof guest_idt - 1, address_of(guest_idt) };

    if (done)
        return;
    done = true;
    guest_gdt[SEL_CODE16 >> 3] = DESC(CODE_AT, 0xffff, 0x9b, 0);
    guest_gdt[SEL_STACK16 >> 3] = DESC(STACK_AT, 0xffff, 0x93, 0);
    guest_gdt[SEL_DATA16 >> 3] = DESC(DATA_AT, 0xffff, 0x93, 0);
    guest_gdt[SEL_UCODE16 >> 3] = DESC(CODE_AT, 0xffff, 0xfb, 0);
    guest_gdt[SEL_USTACK16 >> 3] = DESC(STACK_AT, 0xffff, 0xf3, 0);
    guest_gdt[SEL_UDATA16 >> 3] = DESC(DATA_AT, 0xffff, 0xf3, 0);
    guest_gdt[SEL_REAL_CODE >> 3] = DESC(REAL_AT, 0xffff, 0x9b, 0);
    guest_gdt[SEL_REAL_DATA >> 3] = DESC(0, 0xffff, 0x93, 0);
    guest_gdt[SEL_REAL_BIG >> 3] = DESC(0, 0xfffff, 0x93, 8);
    memcpy((void *)REAL_AT, real_image, (size_t)(real_image_end - real_image));
    memcpy(low(real_protected_gdtr), &gdtr, sizeof gdtr);
    memcpy(low(real_protected_idtr), &idtr, sizeof idtr);
    for (unsigned v = 0; v < 256; v++)
        ivt_set(v, REAL_SEG, (uint16_t)(real_stubs - real_image + 8 * (int)v));
    setup_default();
}

void code_place(const void *code, size_t bytes, uint32_t at)
{
    modes_init();
    memcpy((void *)(CODE_AT + at), code, bytes);
}

struct context real_new(void)
{
    modes_init();
    return (struct context){ .cs = CODE_SEG, .ss = STACK_SEG, .esp = STACK_TOP, .ds = DATA_SEG,
                             .es = DATA_SEG, .fs = DATA_SEG, .gs = DATA_SEG, .eflags = 2 };
}

/* The fields of struct context that assembly knows, up to GS. */
#define LOADED_BYTES (CTX_GS + 4)

void real_run(struct context *c)
{
    memcpy(low(real_context), c, LOADED_BYTES);
    memcpy(low(real_idtr), &real_setup.idtr, sizeof real_setup.idtr);
    memcpy(low(real_big), &real_setup.big, 4);
    memcpy(low(real_cr0_or), &real_setup.cr0_or, 4);
    real_enter();
    memcpy(c, low(real_context), LOADED_BYTES);
    c->eip &= 0xffff;
    c->cs &= 0xffff;
    c->eflags &= 0xffff;
    c->ss &= 0xffff;
    c->ds &= 0xffff;
    c->es &= 0xffff;
    c->fs &= 0xffff;
    c->gs &= 0xffff;
    c->vector = peek16(address_of(low(real_vector)));
    c->error = c->cr2 = 0;
    real_end_cr0 = peek(address_of(low(real_old_cr0)));
    setup_default();
}

struct context real_at_0(void)
{
    struct context c = real_new();

    real_run(&c);
    return c;
}

struct context vm86_new(void)
{
    struct context c = real_new();

    c.eflags |= EFL_VM;
    return c;
}

struct context vm86_at_0(void)
{
    struct context c = vm86_new();

    context_run(&c);
    return c;
}

struct context prot16_new(int ring)
{
    uint32_t data = ring ? SEL_UDATA16 : SEL_DATA16;

    modes_init();
    return (struct context){ .cs = ring ? SEL_UCODE16 : SEL_CODE16, .ss = ring ? SEL_USTACK16 : SEL_STACK16,
                             .esp = STACK_TOP, .ds = data, .es = data, .fs = data, .gs = data, .eflags = 2 };
}

struct context prot16_at_0(int ring)
{
    struct context c = prot16_new(ring);

    context_run(&c);
    return c;
}
