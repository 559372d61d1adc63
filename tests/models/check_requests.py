#!/usr/bin/env python3
"""Checks requests that the sandbox recorded against AWS's published service models, which are part of botocore.

    check_requests.py RECORD...      (files that `ringfence sandbox --record FILE` writes)

It checks operations, unknown and required members, types, patterns, lengths, ranges, enums, and that a union has exactly one
member. It exits with 1 if a request breaks a rule, or if nothing was recorded.
"""

import base64
import binascii
import json
import re
import sys
import unicodedata
from collections import Counter
from datetime import datetime
from functools import cache

import botocore
from botocore.loaders import Loader
from botocore.model import ServiceModel

# botocore's service names that differ from the sandbox's.
SERVICES = {"servicequotas": "service-quotas"}


@cache
def service_model(service):
    name = SERVICES.get(service, service)
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


@cache
def category(name):
    """A Unicode category as the inside of a character class."""
    if name == "ASCII":
        return r"\x00-\x7F"
    ranges, start = [], None
    for point in range(sys.maxunicode + 2):
        is_in = point <= sys.maxunicode and unicodedata.category(chr(point)).startswith(name)
        if is_in and start is None:
            start = point
        elif not is_in and start is not None:
            ranges.append(f"\\U{start:08X}-\\U{point - 1:08X}")
            start = None
    if not ranges:
        raise re.error(f"no Unicode category {name}")
    return "".join(ranges)


@cache
def compiled(pattern):
    """Converts a pattern. The models have Java's syntax, which differs in Unicode categories and ASCII-only classes."""
    out, inside, at = [], False, 0
    while at < len(pattern):
        named = re.match(r"\\p\{(?:Is)?(\w+)\}", pattern[at:])
        if named:
            found = category(named[1])
            out.append(found if inside else f"[{found}]")
            at += named.end()
        elif pattern[at] == "\\":
            out.append(pattern[at : at + 2])
            at += 2
        else:
            # In Python's syntax, a bracket inside a character class is already a plain character.
            inside = pattern[at] == "[" or (inside and pattern[at] != "]")
            out.append(pattern[at])
            at += 1
    return re.compile("".join(out), re.ASCII)


def wire_name(protocol, name, shape):
    """The name of a member in a recorded request."""
    serialized = shape.serialization
    if serialized.get("location") == "uri":
        # A path has no member names. The sandbox records the names of the API reference.
        return name
    if protocol == "ec2":
        located = serialized.get("name", name)
        return serialized.get("queryName") or located[:1].upper() + located[1:]
    if protocol == "query" and shape.type_name == "list" and serialized.get("flattened"):
        return shape.member.serialization.get("name") or serialized.get("name", name)
    return serialized.get("name", name)


class Check:
    """Checks one request. `violations` are pairs of place and message."""

    def __init__(self, service, operation, params):
        self.violations = []
        try:
            model = service_model(service)
            self.protocol = model.metadata["protocol"]
            shape = model.operation_model(operation).input_shape
        except Exception as unknown:  # botocore has an exception of its own for each reason
            return self.report(operation, str(unknown))
        if shape is None:
            for name in params:
                self.report(f"{operation}.{name}", "unknown member")
            return
        self.value(operation, shape, params, text=self.protocol in ("ec2", "query"))

    def report(self, where, what):
        self.violations.append((where, what))

    def value(self, where, shape, value, text):
        """With `text`, all leaves are strings on the wire, whatever their type."""
        if value is None:
            return self.report(where, "null")
        getattr(self, f"_{shape.type_name}")(where, shape, value, text)

    def _structure(self, where, shape, value, text):
        if value == "" and text:
            value = {}
        if not isinstance(value, dict):
            return self.report(where, f"{value!r} is no structure")
        if getattr(shape, "is_document_type", False):
            return
        members = {wire_name(self.protocol, name, member): (name, member) for name, member in shape.members.items()}
        for wire, given in value.items():
            if wire not in members:
                self.report(f"{where}.{wire}", "unknown member")
                continue
            name, member = members[wire]
            in_url = member.serialization.get("location") in ("querystring", "uri")
            if in_url and member.type_name == "list" and not isinstance(given, list):
                given = [given]
            self.value(f"{where}.{name}", member, given, text or in_url)
        given = {members[wire][0] for wire in value if wire in members}
        for name in shape.required_members:
            # The record has no headers.
            if name not in given and shape.members[name].serialization.get("location") not in ("header", "headers"):
                self.report(f"{where}.{name}", "required, but missing")
        if getattr(shape, "is_tagged_union", False) and len(given) != 1:
            self.report(where, f"a union with {len(given)} members")

    def _list(self, where, shape, value, text):
        if value == "" and text:
            value = []
        if not isinstance(value, list):
            return self.report(where, f"{value!r} is no list")
        self.bounds(where, shape, len(value), "items")
        for item in value:
            self.value(f"{where}[]", shape.member, item, text)

    def _map(self, where, shape, value, text):
        if text and isinstance(value, dict) and isinstance(value.get("entry"), list):
            value = {entry.get("key"): entry.get("value") for entry in value["entry"]}
        if not isinstance(value, dict):
            return self.report(where, f"{value!r} is no map")
        self.bounds(where, shape, len(value), "entries")
        for key, item in value.items():
            self.value(f"{where}{{key}}", shape.key, key, text)
            self.value(f"{where}{{value}}", shape.value, item, text)

    def _string(self, where, shape, value, text):
        if not isinstance(value, str):
            return self.report(where, f"{value!r} is no string")
        self.bounds(where, shape, len(value), "characters", shown=value)
        if shape.enum and value not in shape.enum:
            self.report(where, f"{value!r} is none of {', '.join(shape.enum)}")
        pattern = shape.metadata.get("pattern")
        if pattern:
            try:
                if not compiled(pattern).fullmatch(value):
                    self.report(where, f"{value!r} doesn't match {pattern}")
            except re.error as why:
                self.report(where, f"the pattern {pattern} can't be read: {why}")

    _character = _string

    def _boolean(self, where, shape, value, text):
        if value not in ("true", "false") if text else not isinstance(value, bool):
            self.report(where, f"{value!r} is no boolean")

    def _integer(self, where, shape, value, text):
        if text and isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return self.report(where, f"{value!r} is no integer")
        bits = 63 if shape.type_name == "long" else 31
        if not -(1 << bits) <= value < 1 << bits:
            self.report(where, f"{value} has more than {bits + 1} bits")
        self.bounds(where, shape, value, "")

    _long = _integer

    def _double(self, where, shape, value, text):
        try:
            self.bounds(where, shape, float(value), "")
        except (TypeError, ValueError):
            self.report(where, f"{value!r} is no number")

    _float = _double

    def _timestamp(self, where, shape, value, text):
        if isinstance(value, (int, float)) and not text:
            return
        try:
            datetime.fromisoformat(value.replace("Z", "+00:00"))
        except (AttributeError, ValueError):
            self.report(where, f"{value!r} is no time")

    def _blob(self, where, shape, value, text):
        try:
            self.bounds(where, shape, len(base64.b64decode(value, validate=True)), "bytes")
        except (TypeError, ValueError, binascii.Error):
            self.report(where, f"{value!r} is no base64")

    def bounds(self, where, shape, size, unit, shown=None):
        unit = f" {unit}" if unit else ""
        shown = "" if shown is None else f" in {shown!r}"
        if size < shape.metadata.get("min", size):
            self.report(where, f"{size}{unit}{shown}, the least is {shape.metadata['min']}")
        if size > shape.metadata.get("max", size):
            self.report(where, f"{size}{unit}{shown}, the most is {shape.metadata['max']}")


def main(files):
    calls, distinct = Counter(), {}
    for file in files:
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                call = json.loads(line)
                action = (call["service"], call["operation"])
                calls[action] += 1
                distinct.setdefault((action, json.dumps(call["params"], sort_keys=True)), call["params"])
    seen = Counter()
    broken = 0
    for (action, _), params in distinct.items():
        violations = Check(*action, params).violations
        broken += bool(violations)
        seen.update((action[0], where, what) for where, what in violations)
    for (service, where, what), times in sorted(seen.items()):
        print(f"{service}:{where}: {what}" + (f" ({times} requests)" if times > 1 else ""))
    print(
        f"{len(distinct)} distinct requests of {len(calls)} operations ({sum(calls.values())} calls) "
        f"against botocore {botocore.__version__}: {broken} break a rule of the models"
    )
    return 1 if broken or not distinct else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
