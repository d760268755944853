#!/usr/bin/env python3
"""Join a real-mode part (setup.S) and a flat 32-bit program to a bzImage.

usage: mkbzimage.py SETUP.bin PROGRAM.bin OUTPUT
"""
import struct
import sys


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    setup = bytearray(open(sys.argv[1], "rb").read())
    program = bytearray(open(sys.argv[2], "rb").read())
    if len(setup) % 512 or setup[0x202:0x206] != b"HdrS":
        sys.exit("mkbzimage.py: %s is not a setup part" % sys.argv[1])
    program += bytes(-len(program) % 4096)
    setup[0x1F1] = len(setup) // 512 - 1
    struct.pack_into("<I", setup, 0x1F4, len(program) // 16)
    struct.pack_into("<II", setup, 0x248, 0, len(program))
    struct.pack_into("<I", setup, 0x260, (len(program) + 0xFFF) & ~0xFFF)
    with open(sys.argv[3], "wb") as out:
        out.write(setup + program)


main()
