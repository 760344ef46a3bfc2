#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the trials of this example on a host where guests run, and judge them.

Called by ./demo. An honest model is trained and scored in machines that boot.
Then one machine is warmed up with the trusted code and frozen (serve.py), and
every other trial starts from that snapshot and only then gets its model file:
the honest one again, and the hostile one with each of its attacks. Each attack
is loaded twice by the same code: first outside, as a control, then inside a
machine. "contained" needs both: a control that the host saw succeed, and a
trial in which the host saw nothing of it. What a hostile program says of
itself decides nothing.

Exit status: 0 if the model was scored and every attack contained, else 1.
"""

import json
import os
import resource
import shutil
import socket
import statistics
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
TERMINAL = os.environ.get("MICROSBX_DEMO_TERMINAL") == "1"
EMULATED = os.environ.get("MICROSBX_DEMO_EMULATED") == "1"


def paint(text, code):
    return f"\033[{code}m{text}\033[0m" if COLOURS else text


def say(text, end="\n"):
    print(text, end=end, flush=True)


def plain(data, limit=60):
    """Bytes of a stranger as harmless text of one line, their last one."""
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


class Ticker:
    """Shows how long a step has taken so far, once a second, on a terminal."""

    def __init__(self, text):
        self.text, self.stop = text, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        started = time.monotonic()
        while TERMINAL and not self.stop.wait(1):
            seconds = time.monotonic() - started
            say(f"\r  {self.text} ... {seconds:.0f} s", "")

    def __enter__(self):
        say(f"  {self.text} ... ", "")
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        if TERMINAL:
            say(f"\r\033[K  {self.text} ... ", "")


class Trial:
    """One run in one machine: its result line and its output. `options` are
    those of `run`; how it starts is among them."""

    def __init__(self, work, options, command=(), sample=None, enter=None):
        self.result, self.output, self.peak = {}, b"", 0
        paths = [os.path.join(work, n) for n in ("json", "out", "err")]
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)
        argv = [MICROSBX, "run", "--timeout", f"{WAIT}s", "--json", paths[0],
                "--stdout", paths[1], "--stderr", paths[2], *options]
        started = time.monotonic()
        with Sampler(sample or (lambda: 0)) as sampler:
            run = subprocess.run(argv + (["--", *command] if command else []),
                                 env={**os.environ, "TMPDIR": work},
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
    def start(self):
        """Seconds until the machine was ready for its trial, or None."""
        ready = (self.result.get("time") or {}).get("ready_ms")
        return ready / 1000 if ready else None

    @property
    def restored(self):
        return bool((self.result.get("baseline") or {}).get("snapshot"))

    @property
    def attacked(self):
        """The attack had its chance: it came to its own end, or was stopped by
        a limit it ran into. A crash on the way there shows nothing."""
        if self.outcome == "fail":
            return self.result.get("exit_code") in (SUCCEEDED, FAILED)
        return self.outcome in ("disk_full", "pids_limit")

    def why(self):
        error = self.result.get("error") or {}
        errors = plain(b" ".join(self.errors.split()), 300)
        return error.get("message") or errors or self.outcome


def put(*names):
    """Options that send files of this folder to the guest's home."""
    return [f"--put={os.path.join(HERE, name)}:{name}" for name in names]


class Row:
    """A line of the table: a trial, or (without a verdict) a heading."""

    def __init__(self, name, outside="", inside="", verdict="", trial=None):
        self.name, self.verdict = name, verdict
        self.good = verdict in ("trained", "scored", "contained")
        start = f"{trial.start:.1f} s" if trial and trial.start else ""
        total = f"{trial.seconds:.1f} s" if trial else ""
        # Longer words of a failure were said when it happened.
        self.cells = ["  " + name if verdict else name, outside[:24],
                      inside[:24], verdict, start, total]


HEAD = ("trial", "control outside", "in the machine", "verdict", "start",
        "total")
VERDICT, NUMBERS = 3, (4, 5)  # columns; numbers are aligned to the right


class Example:
    def __init__(self, work):
        self.work = work
        self.model = os.path.join(work, "model.npz")
        self.hostile = os.path.join(work, "hostile.pkl")
        self.snapshot = os.path.join(work, "warm")
        self.rows, self.trials = [], []

    # ---- the honest model ---------------------------------------------------

    def booted(self, command, names, options):
        """A trial whose machine boots."""
        return Trial(self.work, ["--image", "python", *put(*names), *options],
                     command)

    def restored(self, model, options=(), **how):
        """A trial from the snapshot, which gets this model file."""
        return Trial(self.work, ["--snapshot", self.snapshot, "--send", model,
                                 *options], **how)

    def train(self):
        self.rows.append(Row("from a boot"))
        with Ticker("train the model"):
            trial = self.booted(["python3", "train.py", "model.npz"],
                                ("train.py", "model.py"),
                                [f"--get=model.npz:{self.model}"])
        good = trial.outcome == "ok" and os.path.exists(self.model)
        text = plain(trial.output).partition(", ")[2]
        return self.add("train the model", "", text if good else trial.why(),
                        "trained" if good else "failed", trial)

    def score(self, name, make):
        with Ticker(name):
            trial = make()
        text = plain(trial.output)
        good = trial.outcome == "ok" and text.startswith("accuracy 0.9")
        return self.add(name, "", text if trial.outcome == "ok" else
                        trial.why(), "scored" if good else "failed", trial)

    def score_booted(self):
        return self.score("score the model", lambda: self.booted(
            ["python3", "evaluate.py", "model.npz"],
            ("evaluate.py", "model.py"), [f"--put={self.model}:model.npz"]))

    def freeze(self):
        """A machine with the trusted code warm, and no model file yet."""
        argv = [MICROSBX, "snapshot", "create", "--image", "python",
                *put("serve.py", "evaluate.py", "model.py"), "--warmup",
                "exec python3 serve.py", "--warmup-ready", "ready",
                "-o", self.snapshot]
        started = time.monotonic()
        with Ticker("warm a machine up and freeze it"):
            run = subprocess.run(argv, env={**os.environ, "TMPDIR": self.work},
                                 stdin=subprocess.DEVNULL, capture_output=True,
                                 timeout=4 * WAIT, check=False)
        took = time.monotonic() - started
        good = run.returncode == 0
        say(f"frozen ({took:.1f} s)" if good else
            f"failed: {plain(b' '.join(run.stderr.split()), 300)}")
        self.rows.append(Row(f"from one snapshot (made in {took:.1f} s)" if good
                             else "no snapshot could be made"))
        return good

    def snapshot_room(self):
        """Bytes the snapshot takes: more and more, if it lies in a tmpfs, where
        a hole that a guest's memory is mapped from is filled (with zeros)."""
        return sum(os.stat(entry.path).st_blocks * 512
                   for entry in os.scandir(self.snapshot))

    def score_restored(self):
        return self.score("score the model", lambda: self.restored(self.model))

    # ---- one attack, outside and inside --------------------------------------

    def arm(self, attack, target=""):
        """The hostile model file, with this attack in it."""
        subprocess.run([sys.executable, os.path.join(HERE, "hostile.py"),
                        self.hostile, attack, target], check=True)

    def control(self, enter=None, quota=None):
        """The armed file, loaded without a machine. Returns its output and,
        with a quota (a folder that gets a small file system of its own), the
        room left."""
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
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=WAIT, preexec_fn=enter)
        if not quota:
            return run.stdout, None
        with open(room, encoding="ascii") as file:
            return run.stdout, int(file.read())

    def judge(self, name, control, trial, inside):
        """One row. control and inside are (fact, words): whether the host saw
        the attack succeed outside, and whether it saw nothing of it inside."""
        (outside, seen_outside), (clean, seen_inside) = control, inside
        if not trial.attacked:
            verdict, seen_inside = "not shown", trial.why()
        elif not outside:
            verdict = "not shown"
        else:
            verdict = "contained" if clean else "ESCAPED"
        return self.add(name, seen_outside, seen_inside, verdict, trial)

    def read_files(self):
        name = "read host files"
        secret = os.urandom(16).hex()
        path = os.path.join(self.work, "canary-" + os.urandom(4).hex())
        with open(path, "w", encoding="ascii") as file:
            file.write(secret)
        self.arm("read", path)
        with Ticker(name):
            out, _ = self.control()
            trial = self.restored(self.hostile)
        with open(path, encoding="ascii") as file:
            intact = file.read() == secret
        outside = secret.encode() in out
        everything = trial.output + json.dumps(trial.result).encode()
        clean = secret.encode() not in everything and intact
        return self.judge(
            name, (outside, "read the canary" if outside else plain(out)),
            trial, (clean, "canary unseen" if clean else
                    "CANARY CAME OUT"))

    def connect(self):
        name = "open connections"
        listener = Listener()
        self.arm("connect", str(listener.port))
        with Ticker(name):
            self.control()
            before = listener.calls
            trial = self.restored(self.hostile)
        calls = listener.calls - before
        # A listener that died would see no calls either.
        alive = listener.answers()
        return self.judge(
            name, (before > 0 and alive, "was called" if before else
                   "saw no call"),
            trial, (calls == 0, f"{calls} calls"))

    def fill(self):
        name = "fill the disk"
        folder = os.path.join(self.work, "quota")
        os.mkdir(folder)

        def used():
            info = os.statvfs(self.work)
            return ((info.f_blocks - info.f_bfree) * info.f_frsize -
                    self.snapshot_room())

        self.arm("fill", folder)
        with Ticker(name):
            out, left = self.control(quota=folder)
            start = used()
            trial = self.restored(
                self.hostile, [f"--disk-limit={DISK_LIMIT // MIB}M"],
                sample=used)
        grown = max(trial.peak - start, 0)
        clean = (grown <= DISK_LIMIT + DISK_SLACK and not os.listdir(folder))
        return self.judge(
            name, (left == 0, f"filled {QUOTA // MIB} MiB" if left == 0
                   else plain(out)),
            trial, (clean,
                    f"{grown / MIB:.0f} MiB, limit {DISK_LIMIT // MIB}"))

    def fork(self):
        name = "fork without end"
        limit = make_limit()
        if limit is None:
            say(f"  {name} ... ", "")
            return self.add(name, "no pids cgroup here", "", "not shown")
        self.arm("fork")
        with Ticker(name):
            try:
                with Sampler(limit.tasks) as sampler:
                    self.control(enter=limit.enter)
            finally:
                limit.remove()
            limit = make_limit()
            try:
                trial = self.restored(
                    self.hostile, [f"--pids-limit={PIDS}"],
                    sample=limit.tasks, enter=limit.enter)
            finally:
                limit.remove()
        # All but a few: the limit may count its own first process, too.
        outside = sampler.peak >= PIDS - PIDS_SLACK
        return self.judge(
            name, (outside, f"hit limit at {sampler.peak}" if outside else
                   f"only {sampler.peak} tasks"),
            trial, (trial.peak <= PIDS_SLACK, f"host: {trial.peak} tasks"))

    # ---- the table -----------------------------------------------------------

    def add(self, name, outside, inside, verdict, trial=None):
        """Returns whether it went as promised."""
        row = Row(name, outside, inside, verdict, trial)
        self.rows.append(row)
        if trial:
            self.trials.append(trial)
        if row.good:
            say(f"{verdict} ({trial.seconds:.1f} s)")
        else:
            say(f"{paint(verdict, '31;1')}: outside: {outside or '-'}; in the "
                f"machine: {inside or '-'}")
        return row.good

    def table(self):
        rows = [row for row in self.rows if row.verdict]
        lines = [HEAD] + [row.cells for row in rows]
        width = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]

        def fit(line):
            return [text.rjust(width[i]) if i in NUMBERS else
                    text.ljust(width[i]) for i, text in enumerate(line)]

        say(paint("  ".join(fit(HEAD)), "1"))
        for row in self.rows:
            cells = fit(row.cells) if row.verdict else row.cells[:1]
            if row.verdict:
                cells[VERDICT] = paint(cells[VERDICT],
                                       "32" if row.good else "31;1")
            say("  ".join(cells))

    def starts(self):
        """How long a start took in this run, of either kind."""
        boots = [t.start for t in self.trials if t.start and not t.restored]
        restores = [t.start for t in self.trials if t.start and t.restored]
        if not boots or not restores:
            return
        say("A machine was ready for its trial in "
            f"{statistics.median(boots):.1f} s by a boot, "
            f"{statistics.median(restores):.1f} s from the snapshot")
        say("(medians of this run" + ("; emulated, so no time here is "
            "representative)." if EMULATED else ")."))
        say("")


def main():
    with tempfile.TemporaryDirectory(prefix="microsbx-demo-") as work:
        example = Example(work)
        say("running each trial in a machine of its own")
        good = True
        for step in (example.train, example.score_booted, example.freeze,
                     example.score_restored, example.read_files,
                     example.connect, example.fill, example.fork):
            done = step()
            good = good and done
            if not done and step in (example.train, example.freeze):
                break  # nothing to go on with
        say("")
        example.table()
        say("")
        example.starts()
        if good:
            say(paint("The model was scored; every attack worked outside and "
                      "none got out.", "32"))
            return 0
        say(paint("Not all as promised: see the verdicts above.", "31;1"))
        return 1


if __name__ == "__main__":
    if not shutil.which("unshare"):
        sys.exit("trials.py: unshare is missing: install util-linux")
    sys.exit(main())
