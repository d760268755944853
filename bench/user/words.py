"""What python3 runs as a user workload: words counted, sorted and hashed; integers, strings, dictionaries, calls."""
import sys

MASK = 0xffffffff


def fnv(text):
    h = 2166136261
    for c in text:
        h = (h ^ ord(c)) * 16777619 & MASK
    return h


def main():
    counts = {}
    lines = sys.stdin.read(120000).split('\n')
    for line in lines:
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    print(len(lines), len(ranked), '%08x' % fnv(''.join(w for w, _ in ranked)))
    for word, n in ranked[:20]:
        print(n, word[::-1].upper())


main()
