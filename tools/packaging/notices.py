#!/usr/bin/env python3
"""The notices of what a program contains: notices.py PACKAGE TRIPLE.

Prints each crate that is linked into PACKAGE for TRIPLE with its licence, and the texts that its authors ask to pass on: each once,
however many crates share it. Of a choice of licences it takes Expat's (MIT). What every Debian system has is named by its place.
"""

import json
import pathlib
import re
import subprocess
import sys

COMMON = pathlib.Path("/usr/share/common-licenses")
#: Not crates, but linked all the same.
RUNTIMES = [
    ("Rust's standard library", "MIT OR Apache-2.0", "Copyright (c) The Rust Project Contributors"),
    ("musl libc", "MIT", "Copyright (c) 2005-2020 Rich Felker, et al."),
]


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments, "--locked"], check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(package, triple):
    """The crates of others in a program: not those that only build it or test it, nor macros, which run where it is built."""
    crates = {(crate["name"], crate["version"]): crate
              for crate in json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", triple))["packages"]}
    tree = cargo("tree", "--package", package, "--target", triple, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    named = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    found = (crates[name, version.removeprefix("v")] for name, version in named)
    return sorted((crate for crate in found if crate["source"]), key=lambda crate: (crate["name"], crate["version"]))


def texts(crate):
    """The texts that come with a crate, and belong to the licence that is chosen."""
    directory = pathlib.Path(crate["manifest_path"]).parent
    named = re.compile(r"(licen[cs]e|copying|copyright|notice)", re.I)
    files = sorted(file for file in directory.iterdir() if file.is_file() and named.match(file.name))
    choices = re.split(r"\s+OR\s+|/", crate["license"] or "")
    if len(choices) > 1:
        chosen = [file for file in files if re.search(r"mit", file.name, re.I)]
        files = chosen or [file for file in files if not re.search(r"apache|unlicense|zlib", file.name, re.I)] or files
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files]


def main():
    package, triple = sys.argv[1:]
    apache = re.sub(r"\s+", " ", "Apache License Version 2.0, January 2004")
    shared = {}
    print(f"What the program {package} contains of others\n")
    for crate in linked(package, triple):
        name = f"{crate['name']} {crate['version']}"
        print(f"{name}: {crate['license']}; {crate['repository'] or ', '.join(crate['authors'])}")
        for text in texts(crate):
            plain = re.sub(r"\s+", " ", text)
            # Debian's own copy says it; what a crate adds to it does not begin like it.
            if apache in plain[:200]:
                text = f"Apache License, Version 2.0: {COMMON / 'Apache-2.0'}"
                plain = text
            shared.setdefault(plain, (text, []))[1].append(name)
    for name, license, copyright in RUNTIMES:
        print(f"{name}: {license}; {copyright}")
    for text, names in shared.values():
        print(f"\n{'-' * 80}\n{', '.join(names)}\n\n{text}")


if __name__ == "__main__":
    main()
