# SPDX-License-Identifier: Apache-2.0
"""Kills, stops and crashes harness and monitor at random instants.

Each step runs one verb of the real programs under strace and, at an instant
drawn from the seed, sends one signal to the harness, to the monitor, or to
their process group. What must come of it is computed from strace's record of
what was seen (who got which message, whether a KVM_RUN had begun, who died of
what), never from what the programs say of themselves. Whatever happens: no
result that the record does not bear out, at most one result and a whole one,
nothing published that is not complete, and nothing left over.

tests/vm/random-kill has the phases of bare guests, tests/vm/guests-kill those
that need an agent. One line a phase and target; a step that went wrong is told
with its number, and "--seed S --count N" repeats the whole run.
"""
import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"))

# Types of messages between harness and monitor (vmm/monitor_proto.h) and the
# reasons of an end, which the first word of an EXIT message holds.
STOP, READY, RUNNING, EXIT = 3, 65, 67, 70
REASONS = {2: "ok", 5: "guest_panic", 9: "debug"}

KILLING = ("KILL", "SEGV")
PATIENCE_S = 15  # until what is dying must be gone; not a matter of speed


class Trace:
    """What strace recorded of one run, in order."""

    LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")

    def __init__(self, text, harness):
        self.harness = harness
        self.monitors = []  # the processes that became a monitor, in order
        self.first_run = {}  # tid of a vCPU: (index, time)
        self.messages = []  # (index, time, tid, "sent"/"got", type, word)
        self.deaths = {}  # pid: (index, signal name or None)
        self.signals = []  # (index, pid, signal name)
        self.unfinished = {}
        self.bad = None
        for index, line in enumerate(text.splitlines()):
            found = self.LINE.match(line)
            if found:
                self.take(index, int(found[1]), float(found[2]), found[3])

    def take(self, index, pid, at, what):
        if "resumed>" in what and pid in self.unfinished:
            what = self.unfinished.pop(pid) + what.split("resumed>", 1)[1]
        elif what.endswith("<unfinished ...>"):
            if "KVM_RUN" in what:
                self.first_run.setdefault(pid, (index, at))
            self.unfinished[pid] = what[:-len("<unfinished ...>")]
            return
        if what.startswith("execve(") and what.endswith("= 0") and \
                pid != self.harness:
            self.monitors.append(pid)
        elif "KVM_RUN" in what:
            self.first_run.setdefault(pid, (index, at))
        elif what.startswith(("sendmsg(", "recvmsg(")):
            self.message(index, at, pid, what)
        elif what.startswith("read(") and what.endswith(" = 128"):
            self.signalfd(index, pid, what)
        elif what.startswith("+++ killed by "):
            self.deaths[pid] = (index, what.split()[3])
        elif what.startswith("+++ exited"):
            self.deaths[pid] = (index, None)
        elif what.startswith("--- SIG"):
            self.signals.append((index, pid, what.split()[1]))

    def signalfd(self, index, pid, what):
        """A signal that was blocked, taken as a struct signalfd_siginfo."""
        words = re.search(r'"((?:\\x[0-9a-f]{2}){4})', what)
        if words:
            number = int.from_bytes(
                bytes.fromhex(words[1].replace("\\x", "")), "little")
            if 0 < number < 32:
                self.signals.append((index, pid, signal.Signals(number).name))

    def message(self, index, at, pid, what):
        result = re.search(r"= (\d+)$", what)
        words = [bytes.fromhex(w.replace("\\x", ""))
                 for w in re.findall(r'iov_base="((?:\\x[0-9a-f]{2})*)"', what)]
        if not result or int(result[1]) < 8 or not words or len(words[0]) < 8:
            return
        kind = int.from_bytes(words[0][4:8], "little")
        word = int.from_bytes(words[1][:4], "little") if len(words) > 1 else 0
        self.messages.append((index, at, pid,
                              "sent" if what.startswith("send") else "got",
                              kind, word))

    def find(self, pid, way, kind):
        """The first message of that kind: (index, time, word), or None."""
        for index, at, who, how, what, word in self.messages:
            if who == pid and how == way and what == kind:
                return index, at, word
        return None

    def ran(self):
        """When the first vCPU began to run: (index, time), or None."""
        return min(self.first_run.values(), default=None)

    def died(self, pid):
        """The index of its death and the signal that it died of."""
        return self.deaths.get(pid, (None, None))

    def complete(self):
        known = {self.harness, *self.monitors}
        return known <= set(self.deaths)


class Rig:
    """The folders, programs and guests of all steps."""

    def __init__(self):
        self.work = tempfile.mkdtemp(prefix="microsbx-kill.", dir="/tmp")
        for name in ("bin", "scratch", "run", "cache", "out"):
            os.mkdir(self.path(name))
        for name in ("microsbx", "microsbx-vmm"):
            shutil.copy(os.path.join(BUILD, name), self.path("bin"))
        for guest in ("hello", "exit_seven", "panic", "spin", "ready",
                      "ready_tells"):
            subprocess.run([os.path.join(BUILD, "tests/vm/bare_kernel"), guest,
                            self.path(guest)], check=True)
        os.truncate(os.open(self.path("disk"), os.O_CREAT | os.O_WRONLY, 0o600),
                    3 << 20)
        self.env = dict(os.environ, TMPDIR=self.path("scratch"),
                        XDG_RUNTIME_DIR=self.path("run"),
                        XDG_CACHE_HOME=self.path("cache"))
        self.microsbx = self.path("bin", "microsbx")

    def path(self, *names):
        return os.path.join(self.work, *names)

    def must(self, *args):
        subprocess.run([self.microsbx, *args], check=True, env=self.env,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def runs(self, pid):
        """Whether the process runs a program of this rig."""
        try:
            return os.readlink("/proc/%d/exe" % pid).startswith(self.work + "/")
        except OSError:
            return False

    def ours(self):
        return [int(pid) for pid in os.listdir("/proc")
                if pid.isdigit() and self.runs(int(pid))]

    def leftovers(self):
        left = ["process %d" % pid for pid in self.ours()]
        left += ["scratch/" + n for n in os.listdir(self.path("scratch"))]
        machines = self.path("run", "microsbx", "machines")
        if os.path.isdir(machines):
            left += ["machine " + n for n in os.listdir(machines)]
        return left

    def await_clean(self):
        end = time.monotonic() + PATIENCE_S
        while self.leftovers() and time.monotonic() < end:
            time.sleep(0.02)
        return self.leftovers()

    def close(self):
        for pid in self.ours():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.work, ignore_errors=True)


class Step:
    """One verb, one signal, and what came of it."""

    def __init__(self, rig, phase, draw):
        self.rig, self.phase = rig, phase
        self.target = draw.choice(phase.TARGETS)
        self.signal = draw.choice(("KILL", "TERM", "STOP", "SEGV"))
        self.pause_s = draw.uniform(0, 0.6)  # between STOP and CONT
        self.args, self.own, self.timeout_s, took_s = phase.make(rig, draw)
        self.delay_s = draw.uniform(0, took_s)
        self.status = self.trace = None
        self.sent = False
        self.stopped = None  # from when to when, by the clock of the trace

    def __str__(self):
        return "%s to the %s after %.0f ms of %s" % (
            self.signal + (" for %.0f ms" % (self.pause_s * 1000)
                           if self.signal == "STOP" else ""),
            self.target, self.delay_s * 1000, " ".join(self.args))

    def run(self):
        log = self.rig.path("log")
        for name in (log, self.rig.path("json")):
            if os.path.exists(name):
                os.unlink(name)
        with open(self.rig.path("said"), "w") as said:
            child = subprocess.Popen(
                ["strace", "-DD", "-f", "-q", "--seccomp-bpf", "-xx", "-s",
                 "16", "-ttt", "-o", log, "-e",
                 "trace=execve,sendmsg,recvmsg,ioctl,read", "-e", "signal=all",
                 "--", self.rig.microsbx, *self.args],
                env=self.rig.env, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, process_group=0)
        # It begins as strace: wait for the program proper.
        while child.poll() is None and not self.rig.runs(child.pid):
            time.sleep(0.0005)
        time.sleep(self.delay_s)
        self.strike(child)
        try:
            self.status = child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self.status = None
        end = time.monotonic() + PATIENCE_S
        while True:
            with open(log, errors="replace") as f:
                self.trace = Trace(f.read(), child.pid)
            if self.trace.complete() or time.monotonic() > end:
                break
            time.sleep(0.01)

    def victims(self, child):
        if self.target == "harness":
            return [child.pid]
        if self.target == "group":
            return [-child.pid]
        try:
            with open("/proc/%d/task/%d/children" % (child.pid,
                                                     child.pid)) as f:
                return [int(p) for p in f.read().split()]
        except OSError:
            return []

    def strike(self, child):
        number = getattr(signal, "SIG" + self.signal)
        for pid in self.victims(child):
            try:
                os.kill(pid, number)
                self.sent = True
                if self.signal == "STOP":
                    began = time.time()
                    time.sleep(self.pause_s)
                    self.stopped = (began, time.time())
                    os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    # ---- what must have come of it ----

    def hit(self, pid):
        """Where in the trace the signal reached it, or None."""
        death, by = self.trace.died(pid)
        if by == "SIG" + self.signal:
            return death
        for index, who, name in self.trace.signals:
            if who == pid and name == "SIG" + self.signal:
                return index
        return None

    def killed_silently(self):
        """The harness is dead of our signal: no word can be expected."""
        _, by = self.trace.died(self.trace.harness)
        return by is not None and by == "SIG" + self.signal

    def expected(self):
        """The set of outcomes that the record allows, for run."""
        t = self.trace
        monitor = t.monitors[-1] if t.monitors else None
        allowed = self.in_time(monitor)
        harness_hit = self.hit(t.harness)
        if monitor is None and any(
                by == "SIG" + self.signal and pid != t.harness
                for pid, (_, by) in t.deaths.items()):
            return {"infra_never_ran"}  # before it had become a monitor
        monitor_hit = self.hit(monitor) if monitor else None
        # TERM: cancelled, unless all was over for the harness before it came.
        if harness_hit is not None and self.signal == "TERM":
            over = t.find(t.harness, "got", EXIT)
            told = t.find(t.harness, "sent", STOP)
            over = min((x[0] for x in (over, told) if x), default=None)
            if over is None or over > harness_hit:
                return {"cancelled"}
            return allowed | {"cancelled"}
        if self.over_deadline() and self.target == "monitor":
            allowed = allowed | {"infra_unknown"}  # who stopped it is to blame
        if monitor_hit is None or self.signal not in KILLING:
            return allowed
        allowed = self.after_death(monitor, monitor_hit, allowed)
        if "infra_unknown" in allowed and not self.phase.began(self):
            allowed = allowed | {"infra_never_ran"}
        return allowed

    def over_deadline(self):
        """We held it while the guest's time ran out."""
        ran = self.trace.ran()
        if None in (self.stopped, self.timeout_s, ran):
            return False
        deadline = ran[1] + self.timeout_s
        return self.stopped[0] < deadline + 0.05 and \
            self.stopped[1] > deadline - 0.05

    def in_time(self, monitor):
        """What the guest's own end allows, by the host's clock."""
        t = self.trace
        start, end = t.ran(), t.find(t.harness, "got", EXIT)
        if self.timeout_s is None or start is None:
            return {self.own}
        if end is None or t.find(t.harness, "sent", STOP) and \
                t.find(t.harness, "sent", STOP)[0] < end[0]:
            return {self.own, "timeout"} if self.signal == "STOP" and \
                self.sent else {self.own}
        late_s = end[1] - start[1] - self.timeout_s
        if late_s > 0.05:
            return {"timeout"}
        return {self.own} if late_s < -0.05 else {self.own, "timeout"}

    def after_death(self, monitor, death, allowed):
        t = self.trace
        told = t.find(monitor, "sent", RUNNING)
        ran = t.ran()
        fault = "monitor_fault" if self.signal == "SEGV" else "infra_unknown"
        if told is None or told[0] > death:
            return {"infra_never_ran"}
        if ran is None or ran[0] > death:
            return {"infra_never_ran", fault}
        stop = t.find(t.harness, "sent", STOP)
        said = t.find(monitor, "sent", EXIT)
        if said is not None and said[0] < death:
            # Dead after its farewell: a crash is one all the same.
            return {fault} if self.signal == "SEGV" else allowed
        if stop is not None and stop[0] < death:
            return allowed | {fault}
        return {fault}

    def complaint(self):
        """What is wrong, or None."""
        if self.status is None:
            return "it did not end"
        if not self.trace.complete():
            return "the record of strace has no end"
        return self.phase.judge(self) or self.left()

    def left(self):
        left = self.rig.await_clean()
        return "left: " + ", ".join(left) if left else None

    def results(self):
        """The lines of the result file; the last may be cut if it has no end."""
        try:
            with open(self.rig.path("json")) as f:
                return f.read().splitlines(keepends=True)
        except FileNotFoundError:
            return []

    def judge_run(self):
        lines = self.results()
        if any(not line.endswith("\n") for line in lines):
            return "a result that is cut: %r" % lines[-1][-80:]
        outcomes = [json.loads(line)["outcome"] for line in lines]
        if len(outcomes) > 1:
            return "%d results" % len(outcomes)
        if self.killed_silently():
            if self.signal == "TERM" and self.trace.monitors:
                return "TERM killed it where a monitor was there"
            if not outcomes:
                return None
        if not outcomes:
            return "no result, status %d: %s" % (self.status, self.said())
        allowed = self.expected()
        if outcomes[0] not in allowed:
            return "%s, where the record allows %s" % (
                outcomes[0], " or ".join(sorted(allowed)))
        return None

    def judge_made(self):
        """A verb that makes something: complete or absent, and it says which."""
        made = os.path.exists(self.phase.product(self.rig))
        if made and not self.phase.is_complete(self.rig):
            return "it is there, and not complete"
        if self.status == 0 and not made:
            return "status 0, and nothing is there"
        if self.status > 0 and made and self.signal != "TERM":
            return "status %d, and it is there: %s" % (self.status, self.said())
        if self.status > 0 and self.status not in (125, 130):
            return "status %d: %s" % (self.status, self.said())
        if self.status < 0 and not self.killed_silently():
            return "killed by %d" % -self.status
        return None

    def said(self):
        with open(self.rig.path("said"), errors="replace") as f:
            return " / ".join(f.read().splitlines())[:300]



def seconds(text):
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])


class Planted:
    """A trial that ends too late to matter."""

    name, TARGETS = "planted", ("monitor",)

    def began(self, step):
        return True

    def make(self, rig, draw):
        return ["run", "--no-agent", "--json", rig.path("json"), "--kernel",
                rig.path("spin"), "-m", "32M", "--timeout", "10s"], \
            "timeout", 10.0, 0

    def judge(self, step):
        return step.judge_run()


def self_check(rig):
    """The judges find what is planted, by the code that looks for real."""
    ok = True
    planted = rig.path("scratch", "planted")
    open(planted, "w").close()
    shutil.copy("/bin/sleep", rig.path("bin", "planted"))
    child = subprocess.Popen([rig.path("bin", "planted"), "60"])
    while child.pid not in rig.ours():
        time.sleep(0.01)
    left = rig.leftovers()
    ok &= "scratch/planted" in left and "process %d" % child.pid in left
    child.kill()
    child.wait()
    os.unlink(planted)
    os.unlink(rig.path("bin", "planted"))

    # A trial whose monitor crashed, and a result that says ok all the same.
    step = Step(rig, Planted(), random.Random(1))
    step.target, step.signal, step.delay_s = "monitor", "SEGV", 0.15
    step.run()
    ok &= step.complaint() is None
    with open(rig.path("json")) as f:
        line = json.loads(f.read())
    for forged in (dict(line, outcome="ok"), dict(line, outcome="timeout")):
        with open(rig.path("json"), "w") as f:
            f.write(json.dumps(forged) + "\n")
        ok &= step.complaint() is not None
    with open(rig.path("json"), "w") as f:
        f.write(json.dumps(line)[:-20])
    ok &= step.complaint() is not None
    return ok


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def main(phases, count):
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--phase", default=None)
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    if not os.access("/dev/kvm", os.W_OK):
        skip("/dev/kvm is missing or not permitted")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"],
                      capture_output=True).returncode != 0:
        skip("strace cannot trace here")
    seed = options.seed if options.seed is not None \
        else int.from_bytes(os.urandom(4), "little")
    print("# --seed %d --count %d" % (seed, options.count))
    rig = Rig()
    try:
        return campaign(rig, phases, options, seed)
    finally:
        rig.close()


def campaign(rig, phases, options, seed):
    draw = random.Random(seed)
    failed = 0
    good = self_check(rig)
    print("ok - what is planted is found" if good else
          "not ok - what is planted is found: it is not")
    failed += not good
    for phase in dict.fromkeys(phases):
        phase.prepare(rig)
    phases = [p for p in phases if options.phase in (None, p.name)]
    tally = {}
    for number in range(options.count):
        phase = phases[number % len(phases)]
        step = getattr(phase, "STEP", Step)(rig, phase, draw)
        step.run()
        complaint = step.complaint()
        key = "%s, the %s" % (step.phase.name, step.target)
        count, hits, wrong = tally.get(key, (0, 0, []))
        if complaint:
            wrong = wrong + ["step %d: %s: %s" % (number, step, complaint)]
        if options.v or complaint:
            print("# %d %s: status %s %s" % (number, step, step.status,
                                             complaint or ""), flush=True)
        tally[key] = (count + 1, hits + step.sent, wrong)
    for key, (count, hits, wrong) in sorted(tally.items()):
        if wrong:
            failed += 1
            print("not ok - %s: %d of %d wrong, --seed %d: %s" % (
                key, len(wrong), count, seed, "; ".join(wrong[:3])))
        else:
            print("ok - %s: %d signals in %d steps, as the record says" % (
                key, hits, count))
    return 1 if failed else 0
