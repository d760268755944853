/* An interpreter of byte code: a jump table's indirect jump every few instructions. */
#include "harness.h"

const char workload_name[] = "interp";
const uint32_t workload_expected = 0x05cb080fu; /* the same program written as a loop in Python */

enum op { PUSH, ADD, SUB, DUP, LOAD, STORE, JNZ, MUL, XOR, SHR, AND, ROT, LESS, SELECT, HALT };

/* x = random; count = 20000; do { x = x * 5 + count; y += x < 2^31 ? x >> 3 : x ^ 0x55; count--; } while (count) */
static const uint8_t program[] = {
    LOAD, 0, PUSH, 5, MUL, LOAD, 1, ADD, DUP, STORE, 0,          /* x = x * 5 + count              */
    DUP, PUSH, 3, SHR, LOAD, 0, PUSH, 0x55, XOR,                  /* x >> 3, x ^ 0x55, after x      */
    LOAD, 0, LOAD, 3, LESS, SELECT,                               /* one of them; x is still below  */
    LOAD, 2, ADD, STORE, 2, STORE, 0,                             /* y += it; x                     */
    LOAD, 1, PUSH, 1, SUB, DUP, STORE, 1, JNZ, 0,                 /* --count                        */
    LOAD, 0, LOAD, 2, XOR, HALT,
};

static uint32_t variables[4], stack[64];

static __attribute__((noipa)) uint32_t interpret(const uint8_t *code)
{
    const uint8_t *pc = code;
    uint32_t *sp = stack; /* the first free slot */
    for (;;) {
        switch ((enum op)*pc++) {
        case PUSH: *sp++ = *pc++; break;
        case ADD: sp--; sp[-1] += sp[0]; break;
        case SUB: sp--; sp[-1] -= sp[0]; break;
        case DUP: sp[0] = sp[-1]; sp++; break;
        case LOAD: *sp++ = variables[*pc++]; break;
        case STORE: variables[*pc++] = *--sp; break;
        case JNZ: pc = *--sp ? code + *pc : pc + 1; break;
        case MUL: sp--; sp[-1] *= sp[0]; break;
        case XOR: sp--; sp[-1] ^= sp[0]; break;
        case SHR: sp--; sp[-1] >>= sp[0]; break;
        case AND: sp--; sp[-1] &= sp[0]; break;
        case ROT: sp[0] = sp[-3]; sp[-3] = sp[-2]; sp[-2] = sp[-1]; sp[-1] = sp[0]; break;
        case LESS: sp--; sp[-1] = sp[-1] < sp[0]; break;
        case SELECT: sp -= 2; sp[-1] = sp[1] ? sp[-1] : sp[0]; break;
        case HALT: return sp[-1];
        }
    }
}

void workload_setup(void)
{
}

uint32_t workload_run(void)
{
    variables[0] = 12345;
    variables[1] = 20000;
    variables[2] = 0;
    variables[3] = 1u << 31;
    return interpret(program);
}
