#!/usr/bin/env python3
"""Makes a manual page of a commented configuration: the comments are the only text about a key.

toml2man.py FILE PAGE SECTION-TEXT-FILE
"""

import re
import sys


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return "\\&" + text if text[:1] in (".", "'") else text


def main(path, name, rest):
    program = {"agent": "hb", "server": "hb-server"}[name.removesuffix(".toml")]
    print(f'.TH {name} 5 "" "{program}" "{program}"')
    print(f".SH NAME\n{roff(name)} \\- configuration of {roff(program)}")
    print(f".SH SYNOPSIS\n/etc/hb/{roff(name)}\n.SH DESCRIPTION")
    paragraph, heading, keys = [], "", 0
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if match := re.match(r"^#?(\[?)(\w+)(\]|( = .*))$", line):
            if match[1]:
                heading = match[2]
                print(f".SH [{heading}]")
                print("\n".join(paragraph))
                paragraph = []
            else:
                if not keys and not heading:
                    print(".SH KEYS")
                print(f".TP\n.B {roff(line.lstrip('#'))}")
                print("\n".join(paragraph))
                keys += 1
            # Two keys may share one text.
            continue
        if line.startswith("# "):
            paragraph.append(roff(line[2:]))
        elif not line:
            if keys == 0 and not heading:
                print("\n.br\n".join(paragraph))
            paragraph = []
    sys.stdout.write(open(rest, encoding="utf-8").read())


main(*sys.argv[1:])
