"""Drives `microsbx boot` through a terminal, as a person does.

    console.py SCENARIO... -- MICROSBX BOOT-OPTIONS...

Prints the lines that tests/run counts.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time


def say(name, right, why=""):
    print("ok - " + name if right else
          "not ok - %s: %s" % (name, repr(why)[-600:]), flush=True)


class Console:
    """One boot in a terminal of 40 rows and 100 columns."""

    def __init__(self, command):
        self.master, self.slave = pty.openpty()
        self.resize(40, 100)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            # A shell in the background ignores SIGINT, but no person's does.
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT,
                           signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(self.slave, fd)
            os.closerange(3, 100)
            os.environ["TERM"] = "xterm"
            os.execv(command[0], command)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def turn(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:
                pass

    def wait_for(self, pattern, seconds=100):
        """Reads until the pattern comes; what came with it is consumed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            self.turn(0.2)
        return None

    def type(self, text):
        os.write(self.master, text)

    def wait_raw(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if not termios.tcgetattr(self.slave)[3] & termios.ICANON:
                return True
            self.turn(0.05)
        return False

    def end(self, seconds=30):
        """The exit status, -signal, or None if it does not end."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if self.master >= 0:
                self.turn(0.05)
            else:
                time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None

    def hang_up(self):
        """Closes the terminal, as a window that is closed does."""
        os.close(self.slave)
        os.close(self.master)
        self.master = -1

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.before


def shell(command):
    c = Console(command)
    say("boot puts the terminal into raw mode", c.wait_raw())
    say("a shell opens", c.wait_for(rb"[~/] # "), c.seen)
    c.type(b"stty size\r")
    say("the window's size reaches the guest", c.wait_for(rb"40 100"), c.seen)
    c.type(b"echo term:$TERM $((40 + 2))\r")
    say("the shell computes and knows the terminal",
        c.wait_for(rb"term:xterm 42"), c.seen)
    c.type(b"sleep 100\r")
    time.sleep(0.5)
    c.type(b"\x03")
    c.type(b"echo after$((1 + 1))\r")
    say("Ctrl-C goes to the guest, not to us", c.wait_for(rb"after2"), c.seen)
    c.type(b"exit\r")
    status = c.end()
    say("leaving the shell powers off with status 0", status == 0,
        (status, c.seen))
    say("the terminal is restored", c.is_restored())


def keys(command):
    c = Console(command)
    c.wait_raw()
    c.type(b"\x01h")
    say("Ctrl-A h helps", c.wait_for(rb"Ctrl-A x  end the machine"), c.seen)
    c.type(b"\x01x")
    status = c.end()
    say("Ctrl-A x ends with status 0", status == 0, status)
    say("the terminal is restored after Ctrl-A x", c.is_restored())


def signals(command):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        c = Console(command)
        c.wait_raw()
        time.sleep(0.5)
        os.kill(c.pid, number)
        status = c.end()
        name = signal.Signals(number).name
        say("%s ends boot with status 130" % name, status == 130, status)
        say("the terminal is restored after %s" % name, c.is_restored())


def dead_terminal(command):
    c = Console(command)
    c.wait_raw()
    time.sleep(0.5)
    c.hang_up()
    status = c.end()
    say("a dead terminal ends boot with status 130", status == 130, status)


def killed(command):
    """SIGKILL leaves nobody to restore the terminal; the monitor still goes."""
    c = Console(command)
    c.wait_raw()
    os.kill(c.pid, signal.SIGKILL)
    say("SIGKILL ends boot", c.end() == -signal.SIGKILL)


def terminal(command):
    """run -t: a terminal for one command."""
    c = Console(command + ["-t", "--", "sh", "-c",
                           "stty size; tty; read x; stty size; exit 5"])
    say("run -t has the window's size", c.wait_for(rb"40 100"), c.seen)
    say("and a terminal", c.wait_for(rb"/dev/pts/\d"), c.seen)
    c.resize(50, 120)
    time.sleep(1)
    c.type(b"\r")
    say("a new size reaches it", c.wait_for(rb"50 120"), c.seen)
    status = c.end()
    say("run -t passes the status on", status == 5, status)
    say("the terminal is restored after run -t", c.is_restored())


def terminal_interrupted(command):
    c = Console(command + ["-t", "--", "sh", "-c",
                           "trap 'echo caught; exit 6' INT; echo ready; "
                           "while :; do sleep 1; done"])
    say("run -t starts", c.wait_for(rb"ready"), c.seen)
    c.type(b"\x03")
    say("Ctrl-C is the command's to handle", c.wait_for(rb"caught"), c.seen)
    status = c.end()
    say("which ends as it likes", status == 6, status)


if __name__ == "__main__":
    split = sys.argv.index("--")
    for scenario in sys.argv[1:split]:
        globals()[scenario](sys.argv[split + 1:])
