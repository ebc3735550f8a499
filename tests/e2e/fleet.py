"""Helpers of the end-to-end tests: running `pagemill`, looking at what it left. Python 3.11, standard library only."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PM_BUILD_DIR", SOURCE / "build"))
PAGEMILL = str(BUILD / "pagemill")
DATA = SOURCE / "tests" / "data" / "e2e"
KINDS = DATA / "kinds"
SLOW = 20 if os.environ.get("PM_SANITIZED") else 1  # limits only guard against hangs


def run(*args, stdin=None, env=None, timeout=120, **kw):
    """pagemill ARGS -> CompletedProcess with text stdout and stderr."""
    full = dict(os.environ, **(env or {}))
    return subprocess.run([PAGEMILL, *map(str, args)], input=stdin, capture_output=True, env=full,
                          timeout=timeout * SLOW, **kw)


def out_of(done):
    return f"exit {done.returncode}\n--- stdout\n{done.stdout.decode(errors='replace')}\n--- stderr\n{done.stderr.decode(errors='replace')}"


def wait_until(condition, what, limit_s=60):
    end = time.monotonic() + limit_s * SLOW
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit_s * SLOW} s in vain for {what}")
        time.sleep(0.02)


def fleet_processes(word):
    """Living processes of ours whose command line holds word, as {pid: command line}; zombies do not count."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = re.search(r"\) (\S)", (entry / "stat").read_text()).group(1)
        except (OSError, AttributeError):
            continue
        if line and state != "Z" and "pagemill" in line and word in line:
            found[int(entry.name)] = line
    return found


class Case(unittest.TestCase):
    """A test with a directory of its own; private fleets of its commands live under it, so leftovers are visible."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pm-e2e-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.dir)], check=False)

    def expect(self, done, code):
        self.assertEqual(done.returncode, code, out_of(done))
        return done

    def markdown(self, out, stem):
        return (pathlib.Path(out) / stem / f"{stem}.md").read_text()

    def pages(self, out, stem):
        return json.loads((pathlib.Path(out) / stem / f"{stem}.json").read_text())


class Service:
    """`pagemill up` in the background, until stop()."""

    def __init__(self, case, workers=1, extra=()):
        self.run_dir = case.dir / "run"
        self.socket = self.run_dir / "client.sock"
        self.log = open(case.dir / "up.log", "ab")
        self.process = subprocess.Popen(
            [PAGEMILL, "up", "--state", str(case.dir / "state"), "--run", str(self.run_dir), "--workers", str(workers),
             *extra], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        case.addCleanup(self.stop)
        # A socket file alone may be the rest of a killed fleet: ask it something.
        wait_until(lambda: self.process.poll() is not None or
                   (self.socket.exists() and self.cli("jobs").returncode == 0), "the fleet to answer")
        if self.process.poll() is not None:
            raise AssertionError("up ended: " + (case.dir / "up.log").read_text())

    def cli(self, *args, **kw):
        return run(args[0], *args[1:], "--socket", self.socket, **kw)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        return self.process.returncode
