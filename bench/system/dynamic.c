/* A program of the usual kind: the dynamic loader, the C library, and nothing to do. */
int main(void)
{
    return 7;
}
