#!/usr/bin/env python3
"""What README.md shows of `ringdown explain` is what the program prints.

    test_readme.py PATH
"""

import argparse
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ringdown", metavar="PATH")
    args = parser.parse_args()
    with open(os.path.join(ROOT, "README.md")) as f:
        shown = re.findall(r"```\n\$ build/release/ringdown explain ([^\n]*)\n\n(.*?)\n```", f.read(), re.S)
    if not shown:
        sys.exit("readme: README.md shows no `ringdown explain`")
    for words, text in shown:
        done = subprocess.run([args.ringdown, "explain"] + words.split(), capture_output=True, text=True, check=True)
        if text not in done.stdout:
            sys.exit("readme: README.md shows\n%s\n\nthe program prints\n%s" % (text, done.stdout))
    print("%d shown in README.md as it is printed" % len(shown))


if __name__ == "__main__":
    main()
