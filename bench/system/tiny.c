/* The smallest program: no C library, one system call. */
void _start(void) __attribute__((noreturn));

void _start(void)
{
    __asm__ volatile("int $0x80" : : "a"(1), "b"(7));
    __builtin_unreachable();
}
