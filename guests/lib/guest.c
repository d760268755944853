/*
 * The guest library: console, reports, descriptor tables, running code at either ring,
 * and the plain page tables. See guest.h.
 */
#include "guest.h"

#define COM1      0x3f8
#define EXIT_PORT 0xf4
#define BOCHS_SHUTDOWN 0x8900 /* a port that ends Bochs when it is told "Shutdown" */

/* ---- bytes ----------------------------------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t n)
{
    void *start = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

void *memset(void *to, int byte, size_t n)
{
    void *start = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *p = a, *q = b;

    for (; n; n--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

/* ---- console ------------------------------------------------------------------------------ */

static void put_char(char c)
{
    if (c == '\n')
        put_char('\r');
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, (uint8_t)c);
}

static void put_text(const char *s)
{
    while (*s)
        put_char(*s++);
}

static void put_hex(uint32_t v)
{
    int shift = 28;

    while (shift && !(v >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put_char("0123456789abcdef"[(v >> shift) & 15]);
}

static void put_dec(uint32_t v)
{
    if (v >= 10)
        put_dec(v / 10);
    put_char((char)('0' + v % 10));
}

static void say_args(const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put_char(*fmt);
            continue;
        }
        switch (*++fmt) {
        case 's':
            put_text(va_arg(ap, const char *));
            break;
        case 'x':
            put_text("0x");
            put_hex(va_arg(ap, uint32_t));
            break;
        case 'u':
            put_dec(va_arg(ap, uint32_t));
            break;
        case 'c':
            put_char((char)va_arg(ap, int));
            break;
        default:
            put_char(*fmt);
            break;
        }
    }
}

void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say_args(fmt, ap);
    va_end(ap);
}

/* ---- reports ------------------------------------------------------------------------------- */

static unsigned failures;

static void fail(const char *name, const char *fmt, ...)
{
    va_list ap;

    say("FAIL %s: ", name);
    va_start(ap, fmt);
    say_args(fmt, ap);
    va_end(ap);
    say("\n");
    failures++;
}

const char *name2(const char *a, const char *b)
{
    static char texts[2][96]; /* a call may stand within a call */
    static unsigned turn;
    char *text = texts[turn++ & 1];
    size_t n = strlen(a);

    memcpy(text, a, n);
    text[n] = '_';
    memcpy(text + n + 1, b, strlen(b) + 1);
    return text;
}

void check(const char *name, bool good)
{
    if (good)
        say("ok %s\n", name);
    else
        fail(name, "does not hold");
}

void check_eq(const char *name, uint32_t got, uint32_t want)
{
    if (got == want)
        say("ok %s\n", name);
    else
        fail(name, "%x, expected %x", got, want);
}

void check_fault(const char *name, const struct context *c, uint32_t vector, uint32_t error)
{
    if (c->vector == vector && c->error == error)
        say("ok %s\n", name);
    else
        fail(name, "vector %u error %x at %x:%x (cr2 %x), expected vector %u error %x", c->vector, c->error, c->cs,
             c->eip, c->cr2, vector, error);
}

void check_page_fault(const char *name, struct context c, uint32_t error, uint32_t cr2)
{
    check_fault(name, &c, V_PF, error);
    check_eq(name, c.cr2, cr2);
}

void check_done(const char *name, const struct context *c)
{
    check_fault(name, c, VEC_DONE, 0);
}

_Noreturn static void leave(enum guest_exit code)
{
    outl(EXIT_PORT, code);
    if (option_given("bochs")) /* which has no debug-exit port: its runner judges by the last line */
        for (const char *word = "Shutdown"; *word; word++)
            outb(BOCHS_SHUTDOWN, (uint8_t)*word);
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void give_up(const char *why)
{
    say("LOST %s\n", why);
    leave(GUEST_LOST);
}

void guest_finish(void);
void guest_finish(void)
{
    say("done %u failures\n", failures);
    leave(failures ? GUEST_FAIL : GUEST_PASS);
}

extern uint32_t boot_params;
#define BP_CMDLINE 0x228

static char command_line[256]; /* a copy: tests write where the loader put it */

static void save_command_line(void)
{
    const char *line = *(const char *const *)(boot_params + BP_CMDLINE);

    for (size_t i = 0; line && line[i] && i < sizeof command_line - 1; i++)
        command_line[i] = line[i];
}

const char *guest_words(void)
{
    return command_line;
}

bool option_given(const char *word)
{
    const char *line = command_line;
    size_t n = strlen(word);

    for (const char *s = line; *s; s++)
        if (!memcmp(s, word, n) && (s == line || s[-1] == ' ') && (s[n] == 0 || s[n] == ' '))
            return true;
    return false;
}

/* ---- descriptor tables ------------------------------------------------------------------------ */

uint64_t guest_gdt[64] __attribute__((aligned(16)));
uint64_t guest_idt[256] __attribute__((aligned(16)));
uint64_t guest_ldt[16] __attribute__((aligned(16)));
struct tss guest_tss __attribute__((aligned(256)));
static uint8_t exception_stack[8192] __attribute__((aligned(16)));
static uint8_t user_stack[8192] __attribute__((aligned(4096)));
static uint8_t ring0_stack[8192] __attribute__((aligned(4096)));
extern uint8_t vector_entries[];

void idt_set(unsigned vector, uint64_t gate)
{
    guest_idt[vector] = gate;
}

static void make_tables(void)
{
    struct table_register gdtr = { sizeof guest_gdt - 1, address_of(guest_gdt) };
    struct table_register idtr = { sizeof guest_idt - 1, address_of(guest_idt) };

    guest_gdt[SEL_KCODE >> 3] = DESC(0, 0xfffff, 0x9b, 0xc);
    guest_gdt[SEL_KDATA >> 3] = DESC(0, 0xfffff, 0x93, 0xc);
    guest_gdt[SEL_UCODE >> 3] = DESC(0, 0xfffff, 0xfb, 0xc);
    guest_gdt[SEL_UDATA >> 3] = DESC(0, 0xfffff, 0xf3, 0xc);
    guest_gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), 0x67, 0x89, 0);
    guest_gdt[SEL_LDT >> 3] = DESC(address_of(guest_ldt), sizeof guest_ldt - 1, 0x82, 0);
    guest_tss.esp0 = address_of(exception_stack) + sizeof exception_stack;
    guest_tss.ss0 = SEL_KDATA;
    guest_tss.io_base = 0x68;
    for (unsigned v = 0; v < 256; v++) {
        bool by_user = v == V_BP || v == V_OF || v == VEC_DONE || v == 0x80;

        guest_idt[v] = GATE(SEL_KCODE, address_of(vector_entries) + 16 * v, by_user ? 0xee : 0x8e);
    }
    __asm__ volatile("lgdt %0\n\tlidt %1\n\t"
                     "ljmp %2, $1f\n1:\n\t"
                     "mov %w3, %%ds\n\tmov %w3, %%es\n\tmov %w3, %%fs\n\tmov %w3, %%gs\n\tmov %w3, %%ss\n\t"
                     "ltr %w4\n\tlldt %w5"
                     :
                     : "m"(gdtr), "m"(idtr), "i"(SEL_KCODE), "r"(SEL_KDATA), "r"(SEL_TSS), "r"(SEL_LDT)
                     : "memory");
}

static void mask_pics(void)
{
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, 0x28);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

void guest_setup(void);
void guest_setup(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x80);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    outb(COM1 + 2, 7);
    save_command_line();
    make_tables();
    mask_pics();
    set_cr0((get_cr0() & ~0xeu) | 0x22); /* MP and NE on, EM and TS off */
    __asm__ volatile("fninit");
}

/* ---- running code -------------------------------------------------------------------------------- */

void guest_enter(struct context *c);
static struct context caught;
bool (*guest_hook)(struct frame *f);

extern uint32_t odd_ss, odd_esp, odd_mask; /* a stack segment other than ours */

bool guest_exception(struct frame *f);
bool guest_exception(struct frame *f)
{
    if (guest_hook && guest_hook(f))
        return true;
    caught = (struct context){
        .edi = f->edi,
        .esi = f->esi,
        .ebp = f->ebp,
        .ebx = f->ebx,
        .edx = f->edx,
        .ecx = f->ecx,
        .eax = f->eax,
        .eip = f->eip,
        .cs = f->cs,
        .eflags = f->eflags,
        .ds = f->ds & 0xffff,
        .es = f->es & 0xffff,
        .fs = f->fs & 0xffff,
        .gs = f->gs & 0xffff,
        .vector = f->vector,
        .error = f->error,
    };
    __asm__ volatile("mov %%cr2, %0" : "=r"(caught.cr2));
    if (f->eflags & EFL_VM) {
        caught.es = f->v_es & 0xffff;
        caught.ds = f->v_ds & 0xffff;
        caught.fs = f->v_fs & 0xffff;
        caught.gs = f->v_gs & 0xffff;
    }
    if ((f->cs & 3) || (f->eflags & EFL_VM)) {
        caught.esp = f->esp;
        caught.ss = f->ss & 0xffff;
    } else if (odd_ss) {
        caught.esp = (odd_esp & ~odd_mask) | ((odd_esp + offsetof(struct frame, esp)) & odd_mask);
        caught.ss = odd_ss;
    } else {
        uint32_t ss;

        __asm__ volatile("mov %%ss, %0" : "=r"(ss));
        caught.esp = address_of(&f->esp);
        caught.ss = ss & 0xffff;
    }
    caught.cs &= 0xffff;
    return false;
}

struct context context_new(int ring, const void *code)
{
    uint32_t data = ring ? SEL_UDATA : SEL_KDATA;

    return (struct context){
        .eip = address_of(code),
        .cs = ring ? SEL_UCODE : SEL_KCODE,
        .eflags = 2,
        .esp = address_of(ring ? user_stack : ring0_stack) + sizeof user_stack - 1024,
        .ss = data,
        .ds = data,
        .es = data,
        .fs = data,
        .gs = data,
    };
}

void context_run(struct context *c)
{
    guest_enter(c);
    *c = caught;
}

struct context run_at(int ring, const void *code)
{
    struct context c = context_new(ring, code);

    context_run(&c);
    return c;
}

/* ---- paging -------------------------------------------------------------------------------------------- */

uint32_t page_directory[1024] __attribute__((aligned(4096)));
static uint32_t page_tables[4][1024] __attribute__((aligned(4096)));

uint32_t *pte_of(uint32_t va)
{
    return &page_tables[va >> 22][(va >> 12) & 1023];
}

void pte_set(uint32_t va, uint32_t value)
{
    *(volatile uint32_t *)pte_of(va) = value;
    invlpg(va);
}

struct context access_at(int ring, const void *code, uint32_t va, uint32_t value)
{
    struct context c = context_new(ring, code);

    c.eax = va;
    c.ecx = value;
    context_run(&c);
    return c;
}

uint32_t pages_added;

bool add_page(struct frame *f)
{
    uint32_t va;

    if (f->vector != V_PF)
        return false;
    __asm__ volatile("mov %%cr2, %0" : "=r"(va));
    pte_set(va & ~0xfffu, (va & ~0xfffu) | PTE_P | PTE_W | PTE_U);
    pages_added++;
    return true;
}

void paging_on(void)
{
    for (uint32_t i = 0; i < 4096; i++)
        page_tables[i >> 10][i & 1023] = i << 12 | PTE_P | PTE_W | PTE_U;
    for (uint32_t i = 0; i < 1024; i++)
        page_directory[i] = i < 4 ? address_of(page_tables[i]) | PTE_P | PTE_W | PTE_U : 0;
    set_cr3(address_of(page_directory));
    set_cr0(get_cr0() | 0x80000000u);
}

void paging_off(void)
{
    set_cr0(get_cr0() & ~0x80000000u);
    set_cr4(get_cr4() & ~0xb0u);
}
