#!/usr/bin/env python3
"""The oracle of the user workloads' checksums: the same work written once more, in Python.

Each function computes what bench/user/NAME.c says in workload_expected; the test compares the two."""
import hashlib
import os
import re
import unittest
import zlib

USER = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench', 'user')
MASK = 0xffffffff


class Random:
    def __init__(self):
        self.state = 7

    def __call__(self):
        self.state = (self.state * 1664525 + 1013904223) & MASK
        return self.state


def sieve():
    limit = 1 << 20
    composite = bytearray(limit)
    for i in range(2, int(limit ** .5) + 1):
        if not composite[i]:
            composite[i * i::i] = b'\1' * len(range(i * i, limit, i))
    return composite.count(0) - 2


def recursion():
    a, b = 0, 1
    for _ in range(30):
        a, b = b, a + b
    # Knuth, "Textbook examples of recursion": y if x <= y, else z if y <= z, else x. This is the variant that gives z.
    memo = {}

    def tak(x, y, z):
        if y >= x:
            return z
        if (x, y, z) not in memo:
            memo[x, y, z] = tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y))
        return memo[x, y, z]
    return a + tak(18, 12, 6)


def hash_():
    random = Random()
    message = bytes(random() >> 24 for _ in range(128 * 1024))
    digest, found = hashlib.sha256(message).digest(), zlib.crc32(message)
    for i in range(0, 32, 4):
        found ^= int.from_bytes(digest[i:i + 4], 'big')
    return found


def sort():
    random, total = Random(), 0
    for key, value in sorted((random(), i) for i in range(32 * 1024)):
        total = (total * 31 + (value ^ key)) & MASK
    return total


def interp():
    x, y = 12345, 0
    for count in range(20000, 0, -1):
        x = (x * 5 + count) & MASK
        y = (y + (x >> 3 if x < 1 << 31 else x ^ 0x55)) & MASK
    return x ^ y


def chase():
    random = Random()

    def walk(count, steps):
        following = list(range(count))
        for i in range(count - 1, 0, -1):
            k = (random() >> 8) % i
            following[i], following[k] = following[k], following[i]
        total = at = 0
        for _ in range(steps):
            total = (total * 3 + at) & MASK
            at = following[at]
        return total
    return walk(2048, 600 * 1024) ^ walk(65536, 150 * 1024)


def strings():
    random, lines, total = Random(), [], 0
    for _ in range(1500):
        words = 3 + (random() >> 29)
        lines.append(' '.join(''.join(chr(97 + (random() >> 8) % 26) for _ in range(2 + (random() >> 28)))
                              for _ in range(words)))
    for before, line in zip([None] + lines, lines):
        total = (total * 31 + (line.count(' ') + 1) * 256 + len(line)) & MASK
        at = line.find('th')
        total += (999 if at < 0 else at) + min([line.find(c) for c in 'xyz' if c in line], default=len(line))
        total += before is not None and before < line
    size = 64 * 1024
    for i in range(1, 17):
        # memset(block, i, 100) comes last but for what it leaves alone; copy holds block[i ..].
        total += i + (size - 1 & 255)
    return total & MASK


def lz_tree():
    length, random = 64 * 1024, Random()
    data = bytes(random() >> 24 & (3 if i & 512 else 31) for i in range(length))
    head, previous, keys, packed, i = {}, {}, [], 0, 0
    while i + 4 < length:
        h = ((data[i] << 16 | data[i + 1] << 8 | data[i + 2]) * 2654435761 & MASK) >> 20
        best = distance = tries = 0
        at = head.get(h)
        while at is not None and tries < 8:
            n, most = 0, min(length - i, 255)
            while n < most and data[at + n] == data[i + n]:
                n += 1
            if n > best and i - at < 65536:
                best, distance = n, i - at
            at, tries = previous[at], tries + 1
        previous[i], head[h] = head.get(h), i
        if best >= 4:
            packed += 3
            keys.append((distance * 2654435761 & MASK) >> 16)
            i += best
        else:
            packed += 2
            i += 1
    packed += 2 * (length - i)
    counts, links, root = {}, {}, None  # the tree: key -> [left, right]
    for key in keys:
        if key in counts:
            counts[key] += 1
            continue
        if len(counts) == 8192:
            continue
        counts[key], links[key] = 1, [None, None]
        at = root
        while at is not None:
            side = key > at
            if links[at][side] is None:
                links[at][side] = key
                break
            at = links[at][side]
        root = key if root is None else root

    def tree_sum(key):
        return 1 if key is None else key * counts[key] + tree_sum(links[key][0]) * 3 + tree_sum(links[key][1])
    return (packed + tree_sum(root)) & MASK


WORKLOADS = {'sieve': sieve, 'recursion': recursion, 'hash': hash_, 'sort': sort, 'interp': interp, 'chase': chase,
             'strings': strings, 'lz-tree': lz_tree}


def declared():
    """-> {workload: the value of workload_expected in its source}"""
    found = {}
    for name in os.listdir(USER):
        if name.endswith('.c'):
            with open(os.path.join(USER, name)) as f:
                source = f.read()
            title = re.search(r'workload_name\[\] = "([^"]+)"', source)
            value = re.search(r'workload_expected = ([^;]+);', source)
            if title and value:
                found[title.group(1)] = int(value.group(1).rstrip('u'), 0)
    return found


class Expected(unittest.TestCase):
    def test_checksums_are_those_of_python(self):
        source = declared()
        for name, compute in WORKLOADS.items():
            with self.subTest(name):
                self.assertEqual('0x%08x' % source[name], '0x%08x' % compute())


if __name__ == '__main__':
    unittest.main()
