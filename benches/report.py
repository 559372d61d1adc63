#!/usr/bin/env python3
"""Measures ringfence against its sandbox and writes docs/benchmarks.md.

    cargo build --release && benches/report.py [--check] [--only CASE | --makespan | --scale [TENANTS]...]... [--bin PATH]

For each case an estate is created, planned without a change, changed in the maximum of one node group, and destroyed. The
sandbox runs in a separate process, so that its CPU time and memory aren't counted. Its clock is so fast that no step waits.
Calls are counted in the sandbox. With --check the exit code is 1 if a budget for calls is exceeded.

The duration of an apply is measured separately, with a slower clock, so that the computer isn't the bottleneck. --makespan
measures only that and rewrites that section.

The cost of many tenants is measured separately, too: --scale measures only that and rewrites that section. With numbers of
tenants it measures these and prints the section instead.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/benchmarks.md"

# The same on terraform 1.11.4 with the AWS provider 5.100.0, on moto: API calls, CPU seconds, peak megabytes.
TERRAFORM = {
    "1 silo": {"apply": (183, 12.8, 793), "plan": (78, 8.8, 776), "destroy": (174, 16.6, 753)},
    "10 silos": {
        "apply": (1812, 27.4, 771),
        "plan": (771, 14.5, 756),
        "change": (775, 17.8, 766),
        "destroy": (1713, 37.3, 799),
    },
    "50 pool tenants": {"apply": (1733, 32.8, 800), "plan": (728, 16.6, 800), "destroy": (1574, 45.0, 800)},
    "mix": {"apply": (1888, 29.9, 800), "plan": (823, 15.5, 800), "destroy": (1809, 41.3, 800)},
}

# Silos, pool tenants, Fargate tenants.
CASES = {"1 silo": (1, 0, 0), "10 silos": (10, 0, 0), "50 pool tenants": (0, 50, 0), "mix": (5, 20, 20)}

SHAPES = {
    # The same resources as the terraform estate, as far as a spec can describe them.
    "baseline": {
        "network": "{supernet: 10.64.0.0/12, vpcPrefix: 16, zones: 3, natGateways: single, "
        "endpoints: [s3, ecr.api, ecr.dkr], flowLogs: true}",
        "admins": "[]",
        "options": ["--aws-only"],
    },
    # The defaults, as in examples/three-tiers, and the objects in the clusters.
    "everything": {
        "network": "{supernet: 10.64.0.0/12, vpcPrefix: 16, zones: 3, natGateways: per-zone, "
        "endpoints: [s3, ecr.api, ecr.dkr, sts, ec2, eks, eks-auth, logs], flowLogs: true}",
        "admins": "[arn:aws:iam::123456789012:role/PlatformAdmin]",
        "options": [],
    },
}

PHASES = {
    "apply": "apply from nothing",
    "plan": "plan, no change",
    "change": "one node group's maximum changed: plan + apply",
    "destroy": "destroy",
}

# The default quotas of a cluster are 30 node groups and 10 Fargate profiles.
QUOTAS = {"L-6D54EA21": 100, "L-23414FF3": 30}

# Budgets for calls: `kinds` counts the calls for the baseline's kinds, `all` counts all AWS calls.
BUDGETS = [
    ("10 silos", "baseline", "plan", "kinds", 150),
    ("10 silos", "baseline", "apply", "kinds", 1000),
    ("10 silos", "everything", "plan", "all", 350),
]
CPU, MEGABYTES, FIRST_OUTPUT = 1.0, 100, 0.5

# Numbers of silos, and the speed of the sandbox's clock. The program has its default options. At this speed the largest
# case takes a minute, and two cores are idle most of the time.
MAKESPAN_CASES, MAKESPAN_SPEED = (1, 10, 20, 50), 20
# The largest ratio of an apply's duration to its critical path, and the largest relative error of its own prediction.
LONGER, FORETOLD = 1.05, 0.1

# Numbers of tenants. Of 1,000, 12 are silos and the others are in 38 pools: 24 with nodes and two on Fargate in each.
SCALE_CASES = (10, 100, 1000)
SILOS, IN_POOL, FARGATE_EVERY = 0.012, 26, 13
SCALE_PHASES = {
    "validate": ["validate"],
    "first": ["plan"],
    "apply": ["apply", "--auto-approve"],
    "plan": ["plan", "--detailed-exitcode"],
}
# Roles in the account, and vCPUs of its instances.
SCALE_QUOTAS = {"L-FE177D64": 5000, "L-1216C47A": 20000}
# Budgets for 1,000 tenants: CPU seconds, peak megabytes.
SCALE_BUDGETS = {"validate": (0.5, 60), "apply": (40, 350), "plan": (5, 250)}
# An apply is stopped after so many seconds. Then the report shows the steps that it completed.
SCALE_LIMIT = 1800


def of_the_baseline(action, case):
    """True if the call is for a kind of resource that terraform's estate has."""
    service, operation = action.split(":")
    if service == "eks":
        return bool(re.search("Cluster|Nodegroup" + ("|FargateProfile" if case == "mix" else ""), operation))
    if service == "iam":
        return not re.search("ServiceLinkedRole|OpenIDConnectProvider", operation)
    return service in ("ec2", "kms", "sts")


def spec(case, shape, larger):
    silos, pooled, fargate = CASES[case]
    lines = [
        "apiVersion: ringfence.dev/v1alpha1",
        "kind: Tenancy",
        "metadata: {name: bench}",
        "spec:",
        "  region: us-east-1",
        '  kubernetesVersion: "1.36"',
        f"  network: {SHAPES[shape]['network']}",
        f"  access: {{endpoint: private, admins: {SHAPES[shape]['admins']}}}",
    ]
    if pooled or fargate:
        lines.append("  pools: [{name: shared}]")
    tenants = [(f"s{n:02}", "premium", "", 6) for n in range(silos)]
    tenants += [(f"p{n:02}", "standard", ", pool: shared", 3) for n in range(pooled)]
    tenants += [(f"f{n:02}", "serverless", ", pool: shared", None) for n in range(fargate)]
    lines.append("  tenants:")
    for n, (name, tier, pool, most) in enumerate(tenants):
        overrides = f", overrides: {{nodes: {{max: {most + 1}}}}}" if larger and n == 0 else ""
        lines.append(f"    - {{id: {name}, name: tenant-{name}, tier: {tier}{pool}{overrides}}}")
    return "\n".join(lines) + "\n"


def many(tenants):
    """The spec of an estate with this many tenants: pools as large as the quotas of EKS allow, and a few silos."""
    silos = max(1, round(tenants * SILOS))
    pools = -(-(tenants - silos) // IN_POOL)
    lines = [
        "apiVersion: ringfence.dev/v1alpha1",
        "kind: Tenancy",
        "metadata: {name: scale}",
        "spec:",
        "  region: us-east-1",
        '  kubernetesVersion: "1.36"',
        f"  network: {SHAPES['everything']['network'].replace('per-zone', 'single').replace('vpcPrefix: 16', 'vpcPrefix: 18')}",
        f"  access: {{endpoint: private, admins: {SHAPES['everything']['admins']}}}",
        "  pools:",
        *(f"    - {{name: pool-{n:02}}}" for n in range(pools)),
        "  tenants:",
        *(f"    - {{id: s{n:04}, name: silo-{n:04}, tier: premium}}" for n in range(silos)),
    ]
    for n in range(tenants - silos):
        tier = "serverless" if n % FARGATE_EVERY == FARGATE_EVERY - 1 else "standard"
        lines.append(f"    - {{id: t{n:04}, name: tenant-{n:04}, tier: {tier}, pool: pool-{n // IN_POOL:02}}}")
    return "\n".join(lines) + "\n"


class Sandbox:
    """A sandbox in a separate process, with a record of its calls."""

    def __init__(self, binary, home, more=None):
        self.record = home / "calls"
        self.record.touch()
        self.read = 0
        quotas = [f"--quota={code}={value}" for code, value in (QUOTAS | (more or {})).items()]
        command = [binary, "sandbox", "--listen=127.0.0.1:0", "--speed=100000", f"--record={self.record}", *quotas]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = re.search(r"http://127\.0\.0\.1:\d+", self.process.stdout.readline())[0]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": "x",
        }

    def calls(self):
        """The calls since the last request, by action."""
        with open(self.record, encoding="utf-8") as record:
            record.seek(self.read)
            lines = [json.loads(line) for line in iter(record.readline, "")]
            self.read = record.tell()
        return Counter(f"{line['service']}:{line['operation']}" for line in lines)

    def make_admin(self):
        """Creates the spec's principals, which must exist."""
        scope = "123456789012/20260101/us-east-1/iam/aws4_request"
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}],
        }
        body = urllib.parse.urlencode(
            {
                "Action": "CreateRole",
                "Version": "2010-05-08",
                "RoleName": "PlatformAdmin",
                "AssumeRolePolicyDocument": json.dumps(trust),
            }
        )
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=unchecked",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        urllib.request.urlopen(urllib.request.Request(self.url, body.encode(), headers)).read()

    def stop(self):
        self.process.terminate()
        self.process.wait()


def run(command, environment, home, limit=None):
    """
    Exit code, CPU seconds, peak megabytes, seconds until the first output and until the end, and the output. After `limit`
    seconds it is interrupted.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if limit:
        timer = threading.Timer(limit, process.send_signal, [signal.SIGINT])
        timer.daemon = True
        timer.start()
    output = process.stdout.read1(65536)
    first = time.monotonic() - started
    output += process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "code": process.returncode,
        "cpu": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
        "first": first,
        "took": time.monotonic() - started,
        "output": output.decode(errors="replace"),
    }


def measure(binary, case, shape):
    """The figures of each phase. If the estate can't be created, the report ends."""
    phases = {
        "apply": (False, ["apply", "--auto-approve"]),
        "plan": (False, ["plan", "--detailed-exitcode"]),
        "change": (True, ["apply", "--auto-approve"]),
        "destroy": (True, ["destroy", "--auto-approve", "--delete-logs"]),
    }
    found = {}
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        sandbox = Sandbox(binary, home)
        try:
            sandbox.make_admin()
            sandbox.calls()
            for phase, (larger, command) in phases.items():
                (home / "tenancy.yaml").write_text(spec(case, shape, larger))
                result = run([binary, *command, *SHAPES[shape]["options"]], sandbox.environment, home)
                wanted = phase != "change" or "0 added, 1 changed, 0 replaced, 0 destroyed" in result["output"]
                if result["code"] != 0 or not wanted:
                    sys.exit(f"{case}, {shape}: {PHASES[phase]}: exit {result['code']}\n{result['output'][-6000:]}")
                result["calls"] = sandbox.calls()
                result["all"] = result["calls"].total()
                result["kinds"] = sum(n for action, n in result["calls"].items() if of_the_baseline(action, case))
                found[phase] = result
                print(f"{case}, {shape}: {PHASES[phase]}: {summary(result)}", flush=True)
        finally:
            sandbox.stop()
    return found


def chain(plan, took):
    """The critical path: the longest chain of dependent steps by their measured durations, as (seconds, indices)."""
    ends = {}
    for i, step in enumerate(plan["steps"]):
        before = max((ends[need["address"], need["action"]] for need in step["needs"]), default=(0, ()))
        ends[step["address"], step["action"]] = (before[0] + took[i], (*before[1], i))
    return max(ends.values())


def makespan(binary):
    """The durations of applies of many silos, by their own events."""
    rows, alone = [], None
    for silos in MAKESPAN_CASES:
        with tempfile.TemporaryDirectory() as home:
            home = Path(home)
            CASES["makespan"] = (silos, 0, 0)
            text = spec("makespan", "everything", False)
            text = text.replace("per-zone", "single").replace("vpcPrefix: 16", "vpcPrefix: 18")
            (home / "tenancy.yaml").write_text(text)
            command = [binary, "apply", "--auto-approve", "--format=json", "--sandbox=sandbox"]
            environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
            started = time.monotonic()
            command.append(f"--sandbox-speed={MAKESPAN_SPEED}")
            process = subprocess.Popen(
                command, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            documents = [json.loads(line) for line in process.stdout]
            _, status, used = os.wait4(process.pid, 0)
            wall = time.monotonic() - started
            if os.waitstatus_to_exitcode(status) != 0:
                sys.exit(f"{silos} silos: exit {os.waitstatus_to_exitcode(status)}: {documents[-1]}")
        plan = next(document for document in documents if document.get("type") == "plan")
        events = {kind: [d for d in documents if d.get("type") == kind] for kind in ("begin", "done", "end")}
        took = {event["step"]: event["took_seconds"] for event in events["done"]}
        longest, steps = chain(plan, took)
        alone = alone or (longest, [plan["steps"][i] for i in steps], [took[i] for i in steps])
        rows.append(
            {
                "silos": silos,
                "steps": len(plan["steps"]),
                "took": events["end"][0]["took_seconds"],
                "foretold": events["begin"][0]["expected_seconds"],
                "chain": longest,
                "busy": (used.ru_utime + used.ru_stime) / wall,
            }
        )
        print(f"{silos} silos: {rows[-1]}", flush=True)
        for i in steps:
            print(f"    {took[i]:7.1f} s  {plan['steps'][i]['address']}", flush=True)
    return rows, alone


def waiting(rows, alone, build):
    """The section about durations."""
    one, steps, took = alone
    way = ", ".join(f"{step['address'].split('/', 3)[-1]} {seconds:.0f} s" for step, seconds in zip(steps, took) if seconds >= 10)
    lines = [
        "",
        "## Makespan",
        "",
        f"The duration of an `apply` that creates everything, by its own events, with default options, in a sandbox whose clock "
        f"runs {MAKESPAN_SPEED} times faster than real time. The durations of operations are typical ones for AWS, with a small "
        "variation for each resource. They weren't measured on AWS. Shape *everything*, but with one NAT gateway for each silo. "
        "The critical path is the longest chain of dependent steps by their measured durations. For one silo it is "
        f"{one:.0f} s ({way}). For any number of silos, an apply should take at most {LONGER} times its critical path, and its "
        f"prediction at the beginning should be wrong by at most {FORETOLD:.0%}. Load during the measurement: "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, build: {build}. Computing time of the program and the sandbox "
        f"counts {MAKESPAN_SPEED} times, so a debug build or a busy computer makes the figures worse.",
        "",
        "| silos | steps | critical path s | duration s | ratio to the critical path | | ratio to one silo | predicted s | error | | cores busy |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times, off = row["took"] / row["chain"], abs(row["foretold"] / row["took"] - 1)
        lines.append(
            f"| {row['silos']} | {row['steps']:,} | {row['chain']:,.0f} | {row['took']:,.0f} | {times:.3f} "
            f"| {'kept' if times <= LONGER else '**missed**'} | {row['took'] / one:.3f} | {row['foretold']:,.0f} | {off:.1%} "
            f"| {'kept' if off <= FORETOLD else '**missed**'} | {row['busy']:.1f} |"
        )
    return lines


def scale(binary, sizes):
    """The figures for each number of tenants, by phase."""
    rows = []
    for tenants in sizes:
        with tempfile.TemporaryDirectory() as home:
            home = Path(home)
            (home / "tenancy.yaml").write_text(many(tenants))
            sandbox = Sandbox(binary, home, SCALE_QUOTAS)
            try:
                sandbox.make_admin()
                found = {}
                for phase, command in SCALE_PHASES.items():
                    # What changes nothing is run three times, and the least is kept: others use this computer, too.
                    times = 1 if phase == "apply" else 3
                    limit = SCALE_LIMIT if phase == "apply" else None
                    runs = [run([binary, *command], sandbox.environment, home, limit) for _ in range(times)]
                    result = min(runs, key=lambda one: (one["code"] == 0, one["cpu"])) | {"megabytes": max(one["megabytes"] for one in runs)}
                    steps = re.findall(r"^\[(\d+)/(\d+)\]", result["output"], re.MULTILINE)
                    result["steps"] = tuple(map(int, steps[-1])) if steps else None
                    stopped = phase == "apply" and result["code"] == 130
                    if result["code"] != 0 and not stopped:
                        sys.exit(f"{tenants} tenants, {phase}: exit {result['code']}\n{result['output'][-6000:]}")
                    found[phase] = result
                    print(
                        f"{tenants} tenants, {phase}: {result['cpu']:.2f} CPU s, {result['megabytes']:.0f} MB, "
                        f"{result['took']:.1f} s, steps {result['steps']}",
                        flush=True,
                    )
                    # If the apply was stopped, the plan has changes, so it can't be measured.
                    if stopped:
                        break
            finally:
                sandbox.stop()
            rows.append((tenants, found))
    return rows


def crowds(rows, build):
    """The section about many tenants."""
    lines = [
        "",
        "## Scale",
        "",
        "CPU seconds and peak megabytes of ringfence for many tenants. The sandbox is a separate process and isn't counted. Of "
        "1,000 tenants, 12 are silos. The others are in 38 pools, each with 24 tenants on nodes and two on Fargate. 10 and 100 "
        "tenants are divided in proportion. Shape *everything*, with smaller VPCs and one NAT gateway for each. Commands that change "
        "nothing ran three times; the least CPU time and the largest memory are shown. The figures for "
        f"1,000 tenants have their budgets beside them. Build: {build}.",
        "",
        "| tenants | steps | validate | first plan | apply | plan, no change |",
        "|---|---|---|---|---|---|",
    ]

    def cell(tenants, phase, result):
        if result is None:
            return "not measured"
        text = f"{result['cpu']:.2f} s, {result['megabytes']:.0f} MB"
        if phase == "apply" and result["code"] == 130:
            text += f" for {result['steps'][0]:,} steps, then stopped"
        if tenants == max(SCALE_CASES) and phase in SCALE_BUDGETS:
            seconds, megabytes = SCALE_BUDGETS[phase]
            kept = result["cpu"] <= seconds and result["megabytes"] <= megabytes and result["code"] == 0
            text += f" (at most {seconds} s, {megabytes} MB: {'kept' if kept else '**missed**'})"
        return text

    for tenants, phases in rows:
        steps = phases["apply"]["steps"]
        cells = [cell(tenants, phase, phases.get(phase)) for phase in SCALE_PHASES]
        lines.append(f"| {tenants:,} | {steps[1] if steps else 0:,} | {' | '.join(cells)} |")
    return lines


def section(page, title):
    """The lines of one section of `page`. Empty if the page has no such section."""
    found = [part for part in re.split(r"(?m)^(?=## )", page) if part.startswith(title + "\n")]
    return found[0].splitlines() if found else []


def with_section(page, lines):
    """`page` with this section. It replaces the one with the same title. If there is none, it comes after the budgets."""
    title = next(line for line in lines if line.startswith("## "))
    sections = re.split(r"(?m)^(?=## )", page)
    kept = [section for section in sections if not section.startswith(title + "\n")]
    kept.insert(2, "\n".join(lines).strip() + "\n\n")
    return "".join(kept)


def many_tenants(binary):
    """The requests to a real API server for 200 tenants on one cluster, by phase."""
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "figures.json"
        environment = os.environ | {"RINGFENCE_BENCH_BIN": str(binary), "RINGFENCE_BENCH_OUT": str(out)}
        test = ["--exact", "cluster::scale::two_hundred_tenants_on_one_cluster"]
        command = ["cargo", "test", "--quiet", "--test", "it", "--", "--ignored", *test]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return json.loads(out.read_text())


def crowded(figures):
    names = {
        "apply": "apply from nothing",
        "plan": "plan, no change",
        "change": "one quota changed in the spec: plan + apply",
        "repair": "200 quotas changed by hand: plan + apply",
    }
    lines = [
        "",
        "## 200 tenants on one cluster",
        "",
        "Requests to a real kube-apiserver (1.36), with the AWS part in the sandbox. Existing objects are read with one list for "
        "each kind before the changes and one after them. An object that changes needs at most two requests: a read or dry run, "
        "and the apply.",
        "",
        "| phase | objects written | requests | of them lists | CPU s | time s |",
        "|---|---|---|---|---|---|",
    ]
    for figure in figures:
        requests = figure["requests"]
        lines.append(
            f"| {names[figure['phase']]} | {figure['objects']:,} | {sum(requests.values()):,} | {requests['list']:,} "
            f"| {figure['cpu']:.1f} | {figure['wall']:.1f} |"
        )
    return lines


def summary(result):
    return (
        f"{result['kinds']} calls for the baseline's kinds, {result['all']} in all, {result['cpu']:.2f} CPU s, "
        f"{result['megabytes']:.0f} MB, first output after {result['first']:.2f} s, {result['took']:.1f} s"
    )


def judged(results):
    """Each budget as (what, most, found, unit). `found` is None if it wasn't measured."""
    rows = []
    for case, shape, phase, which, most in BUDGETS:
        result = results.get((case, shape), {}).get(phase)
        counted = "calls for the baseline's kinds" if which == "kinds" else "calls with everything"
        rows.append((f"{case}, {PHASES[phase]}: {counted}", most, result and result[which], ""))
    for (case, shape), phases in results.items():
        plan = phases["plan"]
        name = f"{case}, {shape}, plan"
        rows.append((f"{name}: CPU", CPU, plan["cpu"], " s"))
        rows.append((f"{name}: memory", MEGABYTES, plan["megabytes"], " MB"))
        rows.append((f"{name}: first output", FIRST_OUTPUT, plan["first"], " s"))
    return rows


def shown(value):
    return f"{value:.2f}" if isinstance(value, float) and value < 10 else f"{value:,.0f}"


def growth(results):
    """The calls for each additional silo, if both numbers of silos were measured."""
    lines = []
    for shape in SHAPES:
        one, ten = (results.get((case, shape)) for case in ("1 silo", "10 silos"))
        if one and ten:
            each = (f"{phase} {(ten[phase]['all'] - one[phase]['all']) / 9:.1f}" for phase in PHASES)
            lines.append(f"- {shape}: {', '.join(each)}")
    return lines and ["", "Each additional silo adds these calls of all kinds (terraform: apply 181, plan 77, destroy 171):", "", *lines]


def page(results, build, crowd):
    lines = [
        "# Benchmarks",
        "",
        "Written by `benches/report.py`; don't edit it by hand.",
        "",
        "ringfence ran against its sandbox. terraform 1.11.4 with the AWS provider 5.100.0 ran against moto through a counting "
        "proxy. Compare calls, CPU and memory, but not times: both stand-ins are faster than AWS.",
        "",
        f"- Build: {build}." + ("" if build == "release" else " CPU seconds of a debug build are an upper bound."),
        f"- Machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}. Load during the measurement: "
        f"{os.getloadavg()[0]:.1f}, so the time until the first output is an upper bound.",
        "- Calls are counted in the sandbox, which runs in a separate process (`--speed 100000`). CPU seconds (user and system) "
        "and peak memory are those of the ringfence process alone (`wait4`).",
        "- *baseline*: the shape of the terraform estate as far as a spec can describe it: one NAT gateway, the endpoints s3, "
        "ecr.api and ecr.dkr, flow logs, three zones; `--aws-only`. ringfence always adds a system node group, add-ons, roles "
        "for them, security groups of tenants, and log groups. Calls for these count if they are of the baseline's kinds.",
        "- *everything*: a NAT gateway per zone, eight endpoints, an admin, and the objects in the clusters. Calls to Kubernetes "
        "API servers aren't AWS calls and aren't counted.",
        "- *mix*: 5 silos, 20 pool tenants and 20 Fargate tenants on one shared cluster.",
        f"- Quotas raised for the shared clusters: {', '.join(f'{k} to {v}' for k, v in QUOTAS.items())} (node groups and "
        "Fargate profiles per cluster).",
        "",
        "## Budgets",
        "",
        "| what | at most | measured | |",
        "|---|---|---|---|",
    ]
    for what, most, found, unit in judged(results):
        if found is None:
            lines.append(f"| {what} | {shown(most)}{unit} | not measured | |")
        else:
            verdict = "kept" if found <= most else "**missed**"
            lines.append(f"| {what} | {shown(most)}{unit} | {shown(found)}{unit} | {verdict} |")
    lines += [
        "",
        "## All figures",
        "",
        "Calls: for the baseline's kinds / in all. terraform: calls, CPU seconds, peak megabytes.",
        "",
        "| case | shape | phase | calls | CPU s | peak MB | first output s | terraform |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (case, shape), phases in results.items():
        for phase, result in phases.items():
            known = TERRAFORM[case].get(phase)
            other = f"{known[0]:,}, {known[1]} s, {known[2]} MB" if known else "not measured"
            lines.append(
                f"| {case} | {shape} | {PHASES[phase]} | {result['kinds']:,} / {result['all']:,} | {result['cpu']:.2f} "
                f"| {result['megabytes']:.0f} | {result['first']:.2f} | {other} |"
            )
    lines += growth(results)
    if crowd:
        lines += crowded(crowd)
    counted, left_out = set(), set()
    for (case, _), phases in results.items():
        for result in phases.values():
            for action in result["calls"]:
                (counted if of_the_baseline(action, case) else left_out).add(action)
    lines += [
        "",
        "## What is counted for the baseline's kinds",
        "",
        "The kinds are VPC, subnet, internet gateway, elastic IP, NAT gateway, route table, security group, endpoint, flow "
        "log, KMS key, IAM role, cluster, launch template and node group; in the mix also Fargate profiles. Counted: "
        + ", ".join(f"`{action}`" for action in sorted(counted))
        + ".",
        "",
        "Not counted, because terraform's estate has no such resources: "
        + ", ".join(f"`{action}`" for action in sorted(left_out))
        + " (calls for Fargate profiles are counted in the mix).",
        "",
        "## Calls by action, 10 silos",
    ]
    for shape in SHAPES:
        phases = results.get(("10 silos", shape))
        if not phases:
            continue
        actions = sorted(set().union(*(result["calls"] for result in phases.values())))
        lines += ["", f"### {shape}", "", "| action | " + " | ".join(phases) + " |", "|---" * (len(phases) + 1) + "|"]
        for action in actions:
            lines.append(f"| `{action}` | " + " | ".join(str(r["calls"][action] or "") for r in phases.values()) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if a budget for calls is exceeded")
    parser.add_argument("--only", action="append", choices=CASES, help="measure only this case, and print the report instead of writing it")
    parser.add_argument("--makespan", action="store_true", help="measure the durations of applies, and write that section")
    parser.add_argument(
        "--scale", nargs="*", type=int, metavar="TENANTS", help="measure many tenants, and write that section, or print it if numbers are given"
    )
    parser.add_argument("--bin", type=Path, help="the program; the default is the release build, or else the debug build")
    args = parser.parse_args()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    builds = [args.bin] if args.bin else [target / kind / "ringfence" for kind in ("release", "debug")]
    binary = next((path.resolve() for path in builds if path.exists()), None)
    if binary is None:
        sys.exit("no build found: run `cargo build --release`")
    build = "debug" if "debug" in binary.parts else "release"
    if args.makespan:
        PAGE.write_text(with_section(PAGE.read_text(), waiting(*makespan(binary), build)))
        return 0
    if args.scale is not None:
        section = crowds(scale(binary, args.scale or SCALE_CASES), build)
        if args.scale:
            print("\n".join(section))
        else:
            PAGE.write_text(with_section(PAGE.read_text(), section))
        return 0
    results = {(case, shape): measure(binary, case, shape) for case in args.only or CASES for shape in SHAPES}
    if args.only:
        print(page(results, build, None))
    else:
        text = page(results, build, many_tenants(binary))
        # The cost of many tenants is measured separately.
        kept = section(PAGE.read_text(), "## Scale")
        text = with_section(text, kept) if kept else text
        PAGE.write_text(with_section(text, waiting(*makespan(binary), build)))
    missed = [row for row in judged(results) if row[2] is not None and row[2] > row[1]]
    for what, most, found, unit in missed:
        print(f"missed: {what}: {shown(found)}{unit}, at most {shown(most)}{unit}")
    return 1 if args.check and any("calls" in what for what, *_ in missed) else 0


if __name__ == "__main__":
    sys.exit(main())
