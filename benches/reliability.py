#!/usr/bin/env python3
"""Runs the reliability tests, and writes docs/reliability.md from their results.

    benches/reliability.py [--seeds N | --notes FILE]

Runs the tests of `tests/it/reliability`, with N seeds for tests with random faults, and makes a table of their notes. With
--notes, it makes the table from the notes of an earlier run (the file that `RINGFENCE_RELIABILITY` named).
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

Each line is a test of `tests/it/reliability` against the sandbox (docs/faults.md): a run is killed, gets no answers or wrong
ones, is throttled, or reads old data. *As undisturbed*: after the next run (for faults, after the same run), the sandbox holds
the same resources as after an undisturbed run. They are compared member by member, with ids replaced by the addresses in our
tags: no duplicate, no orphan, no missing resource.

- *around every change*: a snapshot was taken after each change. A process that dies directly after that change, or directly
  before the next one, leaves this state. A new run continues from each snapshot.
- *runs dropped*: the run's future is dropped at that call, with all its running steps.
- *SIGKILL*: the program itself is killed after the sandbox has carried out a change and before it answers.
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
