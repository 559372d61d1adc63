"""Runs a command in a terminal, and answers its confirmation prompt.

    terminal.py ANSWER GROUP COMMAND...

Prints the output of the terminal, and exits with the command's exit code. With GROUP, it first changes that log group's
retention in the command's own sandbox. ANSWER `later` means `yes` after two simulated minutes, in a sandbox at speed 150.
"""

import http.client
import os
import pty
import re
import sys
import time

answer, group, command = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
seen = b""


def change():
    inodes = {re.sub(r"\D", "", os.readlink(f"/proc/{pid}/fd/{fd}")) for fd in os.listdir(f"/proc/{pid}/fd")}
    with open("/proc/net/tcp") as sockets:
        rows = [line.split() for line in sockets.readlines()[1:]]
    port = next(int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes)
    sandbox = http.client.HTTPConnection("127.0.0.1", port)
    scope = "123456789012/20260101/eu-central-1/logs/aws4_request"
    sandbox.request("POST", "/", '{"logGroupName": "%s", "retentionInDays": 1}' % group, {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        "X-Amz-Target": "Logs_20140328.PutRetentionPolicy",
        "Content-Type": "application/x-amz-json-1.1",
    })
    assert sandbox.getresponse().status == 200


try:
    while b"Apply this plan?" not in seen:
        seen += os.read(terminal, 4096)
    asked = time.monotonic()
    if group:
        change()
    while answer == "later" and time.monotonic() - asked < 120 / 150:
        time.sleep(0.05)
    os.write(terminal, b"yes\n" if answer == "later" else b"\x03")
    while True:
        seen += os.read(terminal, 4096)
except OSError:
    pass
sys.stdout.buffer.write(seen)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)
