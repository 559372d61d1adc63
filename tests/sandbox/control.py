"""The other end of `tests/it/walks.rs`: it holds the sandbox, whose clock stands still until it is told to move on.

Usage of a walk: python walk_ec2.py URL, with commands on stdout and their answers on stdin."""

import json
import sys

URL = sys.argv[1]


def tell(command):
    print(f"> {command}", flush=True)
    return sys.stdin.readline().strip()


def advance(seconds):
    """Moves the sandbox's clock on."""
    assert tell(f"advance {seconds}") == "ok"


def dump():
    """All that the sandbox holds."""
    return json.loads(tell("dump"))
