#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the trials of this example on a host where guests run, and judge them.

Called by ./demo. An honest model is trained and scored inside machines; then
each attack of the hostile model file runs twice, by the same command: first
outside, as a control, then inside a machine. "contained" needs both: a
control that the host saw succeed, and a trial in which the host saw nothing
of it. What a hostile program says of itself decides nothing.

Exit status: 0 if the model was scored and every attack contained, else 1.
"""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MICROSBX = os.environ.get("MICROSBX_PROGRAM") or os.path.join(
    HERE, "..", "..", "build", "microsbx")
MIB = 1 << 20
SUCCEEDED, FAILED = 10, 11  # how an attack ends, see hostile.py
QUOTA = 32 * MIB       # of the control's folder
DISK_LIMIT = 48 * MIB  # of the trial's disk
PIDS = 48              # the control's limit and the trial's
# The host's side of a trial may use this much besides the guest's disk, and
# this many processes.
DISK_SLACK = 16 * MIB
PIDS_SLACK = 8
WAIT = 120             # seconds after which anything counts as hung
COLOURS = os.environ.get("MICROSBX_DEMO_COLOUR") == "1"


def paint(text, code):
    return f"\033[{code}m{text}\033[0m" if COLOURS else text


def say(text, end="\n"):
    print(text, end=end, flush=True)


def plain(data, limit=60):
    """Bytes of a stranger as harmless text of one line."""
    text = data.decode("ascii", "replace").strip().split("\n")[-1]
    text = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[:limit - 3] + "..."


class Sampler:
    """Calls a function ten times a second and keeps its largest answer."""

    def __init__(self, measure):
        self.measure, self.peak, self.stop = measure, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stop.wait(0.1):
            self.peak = max(self.peak, self.measure())

    def __enter__(self):
        self.peak = self.measure()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class Listener:
    """A live TCP port on loopback that remembers who called."""

    def __init__(self):
        self.calls = 0
        self.sockets = []
        first = socket.create_server(("127.0.0.1", 0))
        self.port = first.getsockname()[1]
        self.sockets.append(first)
        try:
            self.sockets.append(socket.create_server(
                ("::1", self.port), family=socket.AF_INET6))
        except OSError:
            pass  # no IPv6 on this host
        for server in self.sockets:
            threading.Thread(target=self.serve, args=(server,),
                             daemon=True).start()

    def serve(self, server):
        while True:
            link, _ = server.accept()
            self.calls += 1
            link.close()

    def answers(self):
        """True if it is alive: the caller itself can reach it."""
        before = self.calls
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        for _ in range(50):
            if self.calls > before:
                return True
            time.sleep(0.05)
        return False


class PidsCgroup:
    """A cgroup (v2 or v1) whose members cannot start more than PIDS tasks."""

    def __init__(self):
        self.path = None
        for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/pids"):
            try:
                if top == "/sys/fs/cgroup":
                    with open(top + "/cgroup.subtree_control", "w") as file:
                        file.write("+pids")
                path = tempfile.mkdtemp(prefix="microsbx-demo-", dir=top)
            except OSError:
                continue
            try:
                with open(path + "/pids.max", "w") as file:
                    file.write(str(PIDS))
                self.path = path
                return
            except OSError:
                os.rmdir(path)

    def enter(self):
        """In the child, before it becomes the command."""
        with open(self.path + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    def tasks(self):
        with open(self.path + "/pids.current") as file:
            return int(file.read())

    def remove(self):
        """Ends whoever is left in it."""
        if self.path is None:
            return
        for _ in range(100):
            with open(self.path + "/cgroup.procs") as file:
                for pid in file.read().split():
                    try:
                        os.kill(int(pid), 9)
                    except ProcessLookupError:
                        pass
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)


class UserLimit:
    """The same by RLIMIT_NPROC, for users who may not make a cgroup. It counts
    all tasks of the user, so those there at the start are added and taken
    off again. Root is exempt from it."""

    def __init__(self):
        self.before = self.all_tasks()

    @staticmethod
    def all_tasks():
        count = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat("/proc/" + pid).st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{pid}/task"))
            except OSError:
                pass  # it has just ended
        return count

    def enter(self):
        limit = self.before + PIDS
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))

    def tasks(self):
        return self.all_tasks() - self.before

    def remove(self):
        """The attack's children end by themselves; the next count waits."""
        for _ in range(300):
            if self.tasks() <= PIDS_SLACK:
                return
            time.sleep(0.1)


def make_limit():
    """A limit of PIDS tasks on what enters it, or None."""
    group = PidsCgroup()
    if group.path is not None:
        return group
    return UserLimit() if os.getuid() != 0 else None


class Trial:
    """One command in one machine: its result line and its output."""

    def __init__(self, work, command, options=(), sample=None, enter=None):
        self.result, self.output, self.peak = {}, b"", 0
        paths = [os.path.join(work, n) for n in ("json", "out", "err")]
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)
        argv = [MICROSBX, "run", "--image", "python", "--timeout",
                f"{WAIT}s", "--json", paths[0], "--stdout", paths[1],
                "--stderr", paths[2], *options, "--", *command]
        started = time.monotonic()
        with Sampler(sample or (lambda: 0)) as sampler:
            run = subprocess.run(argv, env={**os.environ, "TMPDIR": work},
                                 stdin=subprocess.DEVNULL,
                                 capture_output=True, timeout=4 * WAIT,
                                 preexec_fn=enter, check=False)
        self.seconds = time.monotonic() - started
        self.peak = sampler.peak
        self.errors = run.stderr
        for path in paths[1:]:
            if os.path.exists(path):
                with open(path, "rb") as file:
                    self.output += file.read()
        try:
            with open(paths[0], encoding="utf-8") as file:
                self.result = json.loads(file.read())
        except (OSError, ValueError):
            pass

    @property
    def outcome(self):
        return self.result.get("outcome", "no result")

    @property
    def attacked(self):
        """The attack had its chance: it came to its own end, or was stopped by
        a limit it ran into. A crash on the way there shows nothing."""
        if self.outcome == "fail":
            return self.result.get("exit_code") in (SUCCEEDED, FAILED)
        return self.outcome in ("disk_full", "pids_limit")

    def why(self):
        error = self.result.get("error") or {}
        return error.get("message") or plain(self.errors) or self.outcome


def put(*names):
    """Options that send files of this folder to the guest's home."""
    return [f"--put={os.path.join(HERE, name)}:{name}" for name in names]


class Example:
    def __init__(self, work):
        self.work = work
        self.hostile = os.path.join(work, "hostile.pkl")
        self.rows = []

    # ---- the honest model ---------------------------------------------------

    def honest(self):
        model = os.path.join(self.work, "model.npz")
        say("  train the model ... ", "")
        trial = Trial(self.work, ["python3", "train.py", "model.npz"],
                      put("train.py", "model.py") +
                      [f"--get=model.npz:{model}"])
        good = trial.outcome == "ok" and os.path.exists(model)
        text = plain(trial.output).partition(", ")[2]
        self.add("train the model", "", text if good else trial.why(),
                 "trained" if good else "failed", trial)
        if not good:
            return False
        say("  score the model ... ", "")
        trial = Trial(self.work, ["python3", "evaluate.py", "model.npz"],
                      put("evaluate.py", "model.py") +
                      [f"--put={model}:model.npz"])
        text = plain(trial.output)
        good = trial.outcome == "ok" and text.startswith("accuracy 0.9")
        self.add("score the model", "", text if trial.outcome == "ok" else
                 trial.why(), "scored" if good else "failed", trial)
        return good

    # ---- one attack, outside and inside --------------------------------------

    def control(self, attack, env, enter=None, quota=None):
        """The attack without a machine. Returns its output and, with a quota
        (a folder that gets a small file system of its own), the room left."""
        command = ["python3", os.path.join(HERE, "evaluate.py"), self.hostile]
        room = os.path.join(self.work, "room")
        if quota:
            # Mounted in a namespace that ends with the control. -1: no mount.
            script = (f"echo -1 >{room}; "
                      f"mount -t tmpfs -o size={QUOTA} quota {quota} || exit; "
                      f"{' '.join(command)}; stat -f -c %a {quota} >{room}")
            command = ["unshare", "--mount", "sh", "-c", script]
            if os.geteuid() != 0:
                command.insert(2, "--map-root-user")
        run = subprocess.run(
            command, cwd=self.work, check=False,
            env={"PATH": os.environ["PATH"], "ATTACK": attack, **env},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=WAIT, preexec_fn=enter)
        if not quota:
            return run.stdout, None
        with open(room, encoding="ascii") as file:
            return run.stdout, int(file.read())

    def inside(self, attack, env, options=(), **how):
        words = [f"--env={name}={value}" for name, value in
                 {"ATTACK": attack, **env}.items()]
        return Trial(self.work, ["python3", "evaluate.py", "model.pkl"],
                     put("evaluate.py") + [f"--put={self.hostile}:model.pkl"] +
                     words + list(options), **how)

    def judge(self, name, outside, seen_outside, trial, clean, seen_inside):
        """One row. `outside` and `clean` are facts of the host's."""
        if not trial.attacked:
            verdict, seen_inside = "not shown", trial.why()
        elif not outside:
            verdict = "not shown"
        else:
            verdict = "contained" if clean else "ESCAPED"
        self.add(name, seen_outside, seen_inside, verdict, trial)
        return verdict == "contained"

    def read_files(self):
        say("  read host files ... ", "")
        secret = os.urandom(16).hex()
        path = os.path.join(self.work, "canary-" + os.urandom(4).hex())
        with open(path, "w", encoding="ascii") as file:
            file.write(secret)
        out, _ = self.control("read", {"CANARY": path})
        trial = self.inside("read", {"CANARY": path})
        with open(path, encoding="ascii") as file:
            intact = file.read() == secret
        everything = trial.output + json.dumps(trial.result).encode()
        clean = secret.encode() not in everything and intact
        return self.judge(
            "read host files", secret.encode() in out,
            "canary file read" if secret.encode() in out else plain(out),
            trial, clean,
            "canary in no output" if clean else "CANARY CAME OUT")

    def connect(self):
        say("  open connections ... ", "")
        listener = Listener()
        self.control("connect", {"PORT": str(listener.port)})
        outside = listener.calls > 0
        before = listener.calls
        trial = self.inside("connect", {"PORT": str(listener.port)})
        calls = listener.calls - before
        # A listener that died would see no calls either.
        alive = listener.answers()
        return self.judge(
            "open connections", outside and alive,
            "listener was called" if outside else "listener saw nothing",
            trial, calls == 0, f"listener: {calls} calls")

    def fill(self):
        say("  fill the disk ... ", "")
        folder = os.path.join(self.work, "quota")
        os.mkdir(folder)
        out, left = self.control("fill", {"FOLDER": folder}, quota=folder)

        def used():
            info = os.statvfs(self.work)
            return (info.f_blocks - info.f_bfree) * info.f_frsize

        start = used()
        trial = self.inside("fill", {"FOLDER": folder},
                            [f"--disk-limit={DISK_LIMIT // MIB}M"],
                            sample=used)
        grown = max(trial.peak - start, 0)
        clean = (grown <= DISK_LIMIT + DISK_SLACK and not os.listdir(folder))
        return self.judge(
            "fill the disk", left == 0,
            f"{QUOTA // MIB} MiB folder full" if left == 0 else plain(out),
            trial, clean,
            f"host gave {grown / MIB:.0f} of {DISK_LIMIT // MIB} MiB")

    def fork(self):
        say("  fork without end ... ", "")
        limit = make_limit()
        if limit is None:
            say("not shown: no cgroup can be made here")
            self.rows.append(("fork without end", "no pids cgroup", "",
                              "not shown", "", None))
            return False
        try:
            with Sampler(limit.tasks) as sampler:
                self.control("fork", {}, enter=limit.enter)
        finally:
            limit.remove()
        # All but a few: the limit may count its own first process, too.
        outside = sampler.peak >= PIDS - PIDS_SLACK
        limit = make_limit()
        try:
            trial = self.inside("fork", {}, [f"--pids-limit={PIDS}"],
                                sample=limit.tasks, enter=limit.enter)
        finally:
            limit.remove()
        return self.judge(
            "fork without end", outside,
            f"limit hit at {sampler.peak}" if outside else
            f"only {sampler.peak} tasks", trial,
            trial.peak <= PIDS_SLACK,
            f"host saw {trial.peak} tasks")

    # ---- the table -----------------------------------------------------------

    def add(self, name, outside, inside, verdict, trial):
        self.rows.append((name, outside, inside, verdict, trial.outcome,
                          trial.seconds))
        say(f"{verdict} ({trial.seconds:.1f} s)")

    def table(self):
        head = ("trial", "control, outside", "in the machine",
                "verdict", "outcome", "time")
        lines = [head] + [
            (*row[:5], "" if row[5] is None else f"{row[5]:.1f} s")
            for row in self.rows]
        width = [max(len(line[i]) for line in lines) for i in range(6)]
        for number, line in enumerate(lines):
            cells = [text.ljust(width[i]) for i, text in enumerate(line)]
            cells[5] = line[5].rjust(width[5])
            if number == 0:
                cells = [paint(cell, "1") for cell in cells]
            else:
                good = line[3] in ("trained", "scored", "contained")
                cells[3] = paint(cells[3], "32" if good else "31;1")
            say("  " + "  ".join(cells).rstrip())
            if number == 0:
                say("  " + "  ".join("-" * w for w in width))


def main():
    with tempfile.TemporaryDirectory(prefix="microsbx-demo-") as work:
        example = Example(work)
        subprocess.run([sys.executable, os.path.join(HERE, "hostile.py"),
                        example.hostile], check=True)
        say("running each trial in a machine of its own")
        good = [example.honest()]
        for attack in (example.read_files, example.connect, example.fill,
                       example.fork):
            good.append(attack())
        say("")
        example.table()
        say("")
        if all(good):
            say(paint("The model was scored; every attack worked outside and "
                      "none got out.", "32"))
            return 0
        say(paint("Not all as promised: see the verdicts above.", "31;1"))
        return 1


if __name__ == "__main__":
    if not shutil.which("unshare"):
        sys.exit("trials.py: unshare is missing: install util-linux")
    sys.exit(main())
