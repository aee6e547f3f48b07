"""Plays a user at a terminal: an interactive bash on a pseudo-terminal, and `tierlock run` in it.

Usage: terminal.py TIERLOCK "run OPTIONS" process|host
"""

import os
import pty
import re
import select
import signal
import sys
import time

PATIENCE = 60

tierlock, run, scope = sys.argv[1:]
RUN = f"{tierlock} {run}"


class Terminal:
    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERLOCK_")}
            environment.update(PS1="@prompt@ ", TERM="dumb", HISTFILE="/dev/null")
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self.seen = ""
        self.all = ""

    def expect(self, pattern):
        """Waits until the pattern has been seen, and forgets what came up to its end."""
        until = time.monotonic() + PATIENCE
        while True:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            left = until - time.monotonic()
            ready = select.select([self.fd], [], [], max(left, 0))[0] if left > 0 else []
            if not ready:
                sys.exit(f"never seen: {pattern!r}; the terminal showed:\n{self.all}")
            try:
                text = os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                sys.exit(f"the shell ended, and {pattern!r} was not seen:\n{self.all}")
            self.seen += text
            self.all += text

    def type(self, text):
        os.write(self.fd, text.encode())

    def command(self, line):
        """Types a line at the prompt, and swallows its echo."""
        self.type(line + " #typed\n")
        self.expect("#typed\r?\n")

    def prompt(self):
        self.expect("@prompt@ ")


def foreground_is_mine():
    """What the command finds: run as `terminal.py TIERLOCK RUN look`."""
    mine = os.tcgetpgrp(0) == os.getpgrp()
    print("foreground:", "mine" if mine else "not mine")


if scope == "look":
    foreground_is_mine()
    sys.exit()

LOOK = f"python3 {os.path.abspath(__file__)} x x look"

term = Terminal()
term.prompt()

# The command is in the foreground from its first instruction.
term.command(f"{RUN} job -- {LOOK}")
term.expect("foreground: mine")
term.prompt()

# A command that cannot be started gives the terminal back.
term.command(f"{RUN} job -- ./none; echo status=$?")
term.expect("status=127")
term.prompt()

# It reads what is typed.
term.command(f"{RUN} job -- sh -c 'echo ready; read line; echo got-$line'; echo status=$?")
term.expect("ready")
term.type("words\n")
term.expect("got-words")
term.expect("status=0")
term.prompt()

# Ctrl-C reaches it, and only it: tierlock lives to tell.
term.command(f"{RUN} job -- sh -c 'echo ready; exec sleep 1000'; echo status=$?")
term.expect("ready")
term.type("\x03")
term.expect("status=130")
term.prompt()

# A command that handles Ctrl-C itself is not disturbed.
term.command(f"{RUN} job -- sh -c 'trap \"echo caught; exit 5\" INT; echo ready; while :; do sleep 0.05; done'; echo status=$?")
term.expect("ready")
term.type("\x03")
term.expect("caught")
term.expect("status=5")
term.prompt()

READER = "sh -c 'echo ready; while read line; do echo got-$line; [ $line = end ] && exit 6; done'"

# Ctrl-Z.
term.command(f"{RUN} job -- {READER}")
term.expect("ready")
term.type("\x1a")
if scope == "process":
    # The shell has a stopped job, and the terminal.
    term.expect("Stopped")
    term.prompt()
    term.command("echo back-$((1 + 1))")
    term.expect("back-2")
    term.prompt()
    # The lock is still held.
    term.command(f"{RUN} -n job -- true; echo status=$?")
    term.expect("status=75")
    term.prompt()
    # In the background it is stopped when it wants to read.
    term.command("bg")
    term.prompt()
    term.command("fg")
    term.type("once\n")
    term.expect("got-once")
    # And again.
    term.type("\x1a")
    term.expect("Stopped")
    term.prompt()
    term.command("fg")
else:
    # The lease needs tierlock awake: it says so, and the command goes on.
    term.expect("cannot be stopped|is not stopped|runs on")
term.type("end\n")
term.expect("got-end")
term.prompt()
term.command("echo status=$?")
term.expect("status=6")
term.prompt()

# Started in the background, brought to the foreground.
term.command(f"{RUN} job -- {READER} &")
term.expect("ready")
term.command("")
term.prompt()
term.command("fg")
term.type("first\n")
term.expect("got-first")
term.type("end\n")
term.expect("got-end")
term.prompt()

# It names the holder it waits for, and stops waiting at Ctrl-C.
term.command(f"{RUN} --label other job -- sh -c 'echo holds; exec sleep 1000' &")
term.expect("holds")
term.command("")
term.prompt()
term.command(f"{RUN} job -- true")
term.expect(r'tierlock: lock "job": waiting for other on \S+ \(pid \d+')
term.type("\x03")
term.prompt()
term.command("kill $!; wait; echo over")
term.expect("over")
term.prompt()

# A lost lock: the command is ended, and the shell has the terminal, with the echo that the command
# had switched off.
term.command(f"{RUN} --at-most 500ms job -- sh -c 'stty -echo; exec sleep 1000'; echo status=$?")
term.expect("status=76")
term.prompt()
term.command("stty -a")
term.expect(r"(?<!-)\becho\b")
term.prompt()

term.type("exit\n")
until = time.monotonic() + PATIENCE
while os.waitpid(term.pid, os.WNOHANG) == (0, 0):
    if time.monotonic() > until:
        os.kill(term.pid, signal.SIGKILL)
        sys.exit("the shell does not end")
    time.sleep(0.01)
