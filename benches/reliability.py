#!/usr/bin/env python3
"""Tries what docs/reliability.md tells of, and writes it.

    benches/reliability.py [--seeds N | --notes FILE]

Runs the tests of `tests/it/reliability`, with N seeds where there is chance, and makes a table of what they note; or makes
it of what an earlier run noted in the file that `RINGFENCE_RELIABILITY` named.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reliability.md"

HEAD = """# Reliability

Written by `benches/reliability.py`; don't edit it by hand.

An apply that is killed, gets no answers or wrong ones, is throttled, or reads what is no longer true, and what is left of
it. Each line is a test of `tests/it/reliability`, against the sandbox (docs/faults.md). *As undisturbed*: once the next run
has ended (for faults, the same run), the sandbox holds what an undisturbed run leaves, compared member by member, ids
replaced by the addresses in our tags: nothing twice, nothing orphaned, nothing missing.

- *around every change*: what the sandbox held was kept as each change left it; from each of these, which is what a process
  leaves that dies right after that change or right before the next, a new run goes on.
- *runs dropped*: the run ends in this process at that call, with all that was under way.
- *SIGKILL*: the program itself, killed when the sandbox had done a change and its answer was still to come.
- Terraform, for comparison: eleven kills, none left its estate clean.

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--notes", type=Path)
    said = parser.parse_args()
    lines = read(said.notes) if said.notes else run(said.seeds)
    rows = [f"| {line['what']} | {line['tried']} | {line['left']} |" for line in lines]
    machine = f"- Machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}.\n\n"
    table = "| what was tried | how often | what was left |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    PAGE.write_text(HEAD.rstrip("\n") + "\n" + machine + table)


def run(seeds):
    with tempfile.TemporaryDirectory() as home:
        notes = Path(home) / "notes"
        environment = dict(os.environ, RINGFENCE_RELIABILITY=str(notes), RINGFENCE_SEEDS=str(seeds))
        command = ["cargo", "test", "--test", "it", "--", "reliability::"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return read(notes)


def read(notes):
    return sorted((json.loads(line) for line in notes.read_text().splitlines()), key=lambda line: line["what"])


if __name__ == "__main__":
    main()
