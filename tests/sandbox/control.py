"""Talks to `tests/it/walks.rs`, which runs the sandbox with a manual clock.

Usage of a walk: python walk_ec2.py URL. The walk writes commands to stdout and reads their answers from stdin."""

import json
import sys

URL = sys.argv[1]


def tell(command):
    print(f"> {command}", flush=True)
    return sys.stdin.readline().strip()


def advance(seconds):
    """Moves the sandbox's clock forward."""
    assert tell(f"advance {seconds}") == "ok"


def dump():
    """The whole state of the sandbox."""
    return json.loads(tell("dump"))
