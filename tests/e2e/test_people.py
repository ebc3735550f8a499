#!/usr/bin/env python3
"""What people see of a real fleet: top, jobs, status, logs, health, and a doctor who finds what was broken."""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import unittest

import fleet
from fleet import KINDS, PAGEMILL, Case, Service, run, wait_until

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
LEVELS = {"ok", "warn", "fail"}


class Terminal:
    """A program on a pseudo-terminal; screen() is what a person would see (a very small emulator)."""

    def __init__(self, case, args, rows=30, columns=100, env=None):
        self.rows, self.columns, self.raw = rows, columns, b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm"}, **(env or {}))
            os.execv(PAGEMILL, [PAGEMILL, *map(str, args)])
        self.resize(rows, columns)
        case.addCleanup(self.end)

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return
            if not data:
                return
            self.raw += data

    def screen(self):
        self.read()
        lines, row, column = [[] for _ in range(200)], 0, 0
        text = self.raw.decode(errors="replace")
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[^\x1b]", text):
            if part.startswith("\x1b["):
                place = re.fullmatch(r"\x1b\[(\d+);(\d+)H", part)
                if place:
                    row, column = int(place[1]) - 1, int(place[2]) - 1
                elif part == "\x1b[2J":
                    lines = [[] for _ in range(200)]
                elif part == "\x1b[K":
                    del lines[row][column:]
            elif part >= " ":
                lines[row].extend(" " * (column + 1 - len(lines[row])))
                lines[row][column] = part
                column += 1
        return ["".join(line).rstrip() for line in lines[:self.rows]]

    def shows(self, text):
        return any(text in line for line in self.screen())

    def send(self, keys):
        os.write(self.fd, keys)

    def wait(self):
        """Waits for its end; what the terminal was left as stands in raw."""
        status = []

        def is_gone():
            self.read()
            pid, code = os.waitpid(self.pid, os.WNOHANG) if not status else (0, 0)
            if pid:
                status.append(os.waitstatus_to_exitcode(code))
            return bool(status)
        wait_until(is_gone, "the program on the terminal to end")
        self.read()
        self.pid = 0
        return status[0]

    def end(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class People(Case):
    """One fleet for all of these: it has read one document and refused another."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="pm-e2e-"))
        cls.addClassCleanup(subprocess.run, ["rm", "-rf", str(cls.dir)], check=False)
        cls.addCleanup = cls.addClassCleanup  # for the service, which outlives a test
        cls.service = Service(cls, extra=("--log-level", "debug"))
        del cls.addCleanup
        broken = cls.dir / "broken \"x\" job=1.pdf"
        broken.write_bytes(b"%PDF-1.4 is all there is")
        cls.good = cls.submit(KINDS / "note.png")
        cls.bad = cls.submit(broken)

    def setUp(self):
        """The folder is the class's."""

    @classmethod
    def submit(cls, path, *args):
        done = cls.service.cli("submit", path, *args)
        job = int(done.stdout.split()[0])
        wait_until(lambda: cls.status(job)["state"] in ("done", "failed"), f"job {job}")
        return job

    @classmethod
    def status(cls, job):
        return json.loads(cls.service.cli("status", job, "--json").stdout)

    def test_jobs(self):
        jobs = json.loads(self.expect(self.service.cli("jobs", "--json"), 0).stdout)
        numbers = [j["job"] for j in jobs]
        self.assertEqual(numbers, sorted(numbers, reverse=True))
        for j in [j for j in jobs if j["job"] in (self.good, self.bad)]:
            for key in ("created", "started", "finished"):
                self.assertRegex(j[key], RFC3339)
            self.assertEqual(j["deadline"], None)
        failed = json.loads(self.service.cli("jobs", "--json", "--state", "failed").stdout)
        self.assertEqual([j["job"] for j in failed], [self.bad])
        self.assertEqual(json.loads(self.service.cli("jobs", "--json", "--batch", "none").stdout), [])
        self.assertEqual(len(json.loads(self.service.cli("jobs", "--json", "-n", "1").stdout)), 1)
        self.assertEqual(self.service.cli("jobs", "--all", "-n", "1").returncode, 2)
        plain = self.expect(self.service.cli("jobs"), 0).stdout
        self.assertNotIn(b"\x1b", plain)
        colored = self.expect(self.service.cli("jobs", "--color=always"), 0).stdout
        self.assertIn(b"\x1b[31mfailed", colored)
        self.assertNotIn(b"\x1b", self.service.cli("jobs", env={"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}).stdout)
        self.assertEqual(self.service.cli("jobs", "--color=often").returncode, 2)

        bad = self.status(self.bad)
        self.assertTrue(bad["error"] and bad["error_code"])
        text = self.expect(self.service.cli("status", self.good, self.bad), 0).stdout.decode()
        self.assertRegex(text, r"finished +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  after ")
        self.assertIn(bad["error"], text)

    def test_deadline(self):
        good = KINDS / "note.png"
        job = self.submit(good, "--deadline", "100000", "--again")
        self.assertRegex(self.status(job)["deadline"], RFC3339)

    def test_logs(self):
        text = self.expect(self.service.cli("logs", self.good), 0).stdout.decode()
        lines = text.splitlines()
        for process in ("broker", "layoutd-1", "worker-1", "collector-1"):
            self.assertTrue(any(f" {process}[" in line for line in lines), f"nothing of {process}:\n{text}")
        self.assertTrue(all(re.search(rf"\bjob={self.good}\b", line) for line in lines), text)
        self.assertEqual([line[:24] for line in lines], sorted(line[:24] for line in lines))
        self.assertIn("job accepted", lines[0] + lines[1])
        # A name is the client's word: it cannot pass for another job's line.
        self.assertFalse(any("broken" in line for line in lines))
        self.assertIn('name="', self.service.cli("logs", self.bad).stdout.decode())
        only = self.service.cli("logs", "--process", "worker", "--level", "debug").stdout.decode().splitlines()
        self.assertTrue(only and all(" worker-1[" in line for line in only))
        worse = self.service.cli("logs", "--level", "warning").stdout.decode().splitlines()
        self.assertTrue(worse and all(line.split()[1] in ("warning", "error") for line in worse))
        self.assertEqual(len(self.service.cli("logs", "-n", "3").stdout.splitlines()), 3)
        self.assertEqual(self.service.cli("logs", "--since", "2100-01-01").stdout, b"")
        self.assertEqual(self.service.cli("logs", "--since", "noon").returncode, 2)
        self.assertEqual(self.service.cli("logs", "999999").stdout, b"")
        # The fleet's own folder is found by its state folder too, also when it has stopped.
        state = self.dir / "state"
        self.assertEqual(os.stat(state / "logs").st_mode & 0o777, 0o700)
        after = self.expect(run("logs", self.good, "--state", state), 0).stdout.decode()
        self.assertEqual(after.splitlines(), lines)
        gone = run("logs", "--state", self.dir / "nothing")
        self.assertEqual(gone.returncode, 1)
        self.assertIn(b"pagemill up", gone.stderr)

    def test_follow(self):
        process = subprocess.Popen([PAGEMILL, "logs", "--follow", "--socket", str(self.service.socket)],
                                   stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        os.set_blocking(process.stdout.fileno(), False)
        seen = [b""]

        def has(text):
            seen[0] += process.stdout.read() or b""
            return text in seen[0]
        wait_until(lambda: has(b"job accepted job=%d" % self.good), "old lines")
        job = self.submit(KINDS / "note.png", "--again")
        wait_until(lambda: has(b"job done job=%d" % job), "new lines")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=60), -signal.SIGINT)

    def test_top_once(self):
        stats = json.loads(self.expect(self.service.cli("top", "--json"), 0).stdout)
        self.assertEqual({p["role"] for p in stats["peers"]}, {"layoutd", "worker", "collector"})
        self.assertEqual({q["kind"] for q in stats["queues"]} & {"open", "page", "region"}, {"open", "page", "region"})
        self.assertGreaterEqual(stats["jobs"]["done"], 1)
        self.assertEqual(stats["jobs"]["failed"], 1)
        for width in (40, 80, 132):
            text = self.expect(self.service.cli("top", "--once", env={"COLUMNS": str(width)}), 0).stdout.decode()
            self.assertIn("worker-1", text)
            self.assertIn("1 failed" if width >= 80 else "queued", text)
            self.assertLessEqual(max(map(len, text.splitlines())), width)
            self.assertNotIn("\x1b", text)

    def test_top_screen(self):
        top = Terminal(self, ["top", "--socket", self.service.socket])
        wait_until(lambda: top.shows("worker-1") and top.shows("q leave"), "the screen")
        self.assertIn(b"\x1b[?1049h", top.raw)
        top.resize(12, 50)
        wait_until(lambda: top.screen()[11].startswith("q leave") and not top.shows("MEMORY"), "the smaller screen")
        self.assertLessEqual(max(map(len, top.screen())), 50)
        top.resize(40, 110)
        wait_until(lambda: top.screen()[39].startswith("q leave"), "the larger screen")
        top.send(b"h")
        wait_until(lambda: top.shows("scroll a line"), "the help")
        top.send(b"hn")
        wait_until(lambda: top.shows(">"), "the mark")
        marked, = re.findall(r"(?m)^>(\d+) ", "\n".join(top.screen()))
        top.send(b"c")
        wait_until(lambda: top.shows(f"cancel job {marked}?"), "the question")
        top.send(b"nq")
        self.assertEqual(top.wait(), 0)
        self.assertTrue(top.raw.rstrip().endswith(b"\x1b[?25h\x1b[?1049l"), top.raw[-80:])

    def test_top_survives_its_broker(self):
        top = Terminal(self, ["top", "--socket", self.service.socket])
        wait_until(lambda: top.shows("worker-1"), "the screen")
        broker, = [pid for pid, line in fleet.fleet_processes(str(self.dir)).items() if line.startswith("pagemill-broker")]
        os.kill(broker, signal.SIGSTOP)
        try:
            wait_until(lambda: top.shows("waiting for the broker"), "the notice")
        finally:
            os.kill(broker, signal.SIGCONT)
        wait_until(lambda: top.shows("q leave"), "the broker to be back")
        os.kill(top.pid, signal.SIGTERM)
        self.assertEqual(top.wait(), 0)
        self.assertTrue(top.raw.rstrip().endswith(b"\x1b[?25h\x1b[?1049l"), top.raw[-80:])

    def test_top_respects_the_terminal(self):
        dumb = Terminal(self, ["top", "--socket", self.service.socket], env={"TERM": "dumb"})
        self.assertEqual(dumb.wait(), 0)
        self.assertNotIn(b"\x1b", dumb.raw)
        plain = Terminal(self, ["top", "--socket", self.service.socket], env={"NO_COLOR": "1"})
        wait_until(lambda: plain.shows("worker-1"), "the screen")
        self.assertNotRegex(plain.raw, rb"\x1b\[3\dm")
        plain.send(b"q")
        self.assertEqual(plain.wait(), 0)

    def test_health(self):
        self.assertEqual(self.expect(self.service.cli("health"), 0).stdout, b"ok, 1 worker\n")
        few = self.service.cli("health", "--workers", "2")
        self.assertEqual(few.returncode, 1)
        self.assertIn(b"1 of 2 workers", few.stderr)
        self.assertEqual(self.service.cli("health", "--live", "--workers", "2").returncode, 0)
        none = json.loads(self.service.cli("health", "--json", "--reader", "other").stdout)
        self.assertFalse(none["healthy"])

    def test_zz_stopped(self):
        """The last one: what is said when nothing runs any more."""
        self.service.stop()
        gone = self.service.cli("health")
        self.assertEqual(gone.returncode, 1)
        self.assertIn(b"no fleet", gone.stderr)
        self.assertEqual(self.service.cli("top", "--once").returncode, 3)
        text = self.expect(run("logs", self.good, "--state", self.dir / "state"), 0).stdout
        self.assertIn(b"job done job=%d" % self.good, text)


class Doctor(Case):
    """The right words for what was broken."""

    def examine(self, *args, env=None):
        done = run("doctor", "--json", "--state", self.dir / "state", "--run", self.dir / "run", *args, env=env)
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, ["ok", "warn", "fail"].index(report["result"]), fleet.out_of(done))
        for check in report["checks"]:
            self.assertIn(check["level"], LEVELS)
            self.assertEqual(check["fix"] is None, check["level"] == "ok" or check["fix"] is None)
        return report["checks"]

    def expect_line(self, checks, subject, level, text, fix=""):
        for c in checks:
            if c["subject"] == subject and c["level"] == level and text in c["text"] and fix in (c["fix"] or ""):
                return
        self.fail(f"no {level} line of {subject} with {text!r} and {fix!r} in {json.dumps(checks, indent=1)}")

    def test_healthy(self):
        service = Service(self)
        wait_until(lambda: service.cli("health").returncode == 0, "the fleet to serve")
        checks = self.examine("--full")
        self.assertEqual([c for c in checks if c["level"] == "fail"], [])
        self.expect_line(checks, "fleet", "ok", "3 processes")
        self.expect_line(checks, "models", "ok", "checksums are right")
        self.expect_line(checks, "sandbox", "ok", "walled in")
        text = run("doctor", "--state", self.dir / "state", "--run", self.dir / "run").stdout.decode()
        self.assertRegex(text, r"(?m)^ok    fleet    version ")

    def test_mode(self):
        (self.dir / "state").mkdir(mode=0o700)
        os.chmod(self.dir / "state", 0o755)
        self.expect_line(self.examine(), "state", "fail", "mode 755", f"chmod 700 {self.dir}/state")

    def test_no_folder(self):
        (self.dir / "state").write_text("")
        self.expect_line(self.examine(), "state", "fail", "is no folder")

    def test_long_path(self):
        done = run("doctor", "--json", "--state", self.dir / "s", "--run", self.dir / ("r" * 120))
        self.expect_line(json.loads(done.stdout)["checks"], "run", "fail", "too long", "--run")

    def test_no_models(self):
        (self.dir / "models").mkdir()
        checks = self.examine("--models", self.dir / "models")
        self.expect_line(checks, "models", "fail", "there are none", "pagemill model add")

    def test_missing_reader(self):
        self.expect_line(self.examine("--reader", "nobody"), "models", "fail", "nobody", "pagemill model")

    def test_damaged_model(self):
        models = self.dir / "models"
        source = next(p.parent for p in (fleet.SOURCE / "models").glob("*/pagemill.json")
                      if json.loads(p.read_text())["family"] == "ppocr")
        shutil.copytree(source, models / "ppocr")
        weights = sorted((models / "ppocr").glob("*.pmw"))[0]
        os.chmod(weights, 0o600)
        middle = weights.stat().st_size // 2
        with open(weights, "r+b") as f:  # the data, which only --full reads
            f.seek(middle)
            byte = f.read(1)
            f.seek(middle)
            f.write(bytes([byte[0] ^ 1]))
        self.assertFalse(any(c["level"] == "fail" for c in self.examine("--models", models) if c["subject"] == "models"))
        self.expect_line(self.examine("--models", models, "--full"), "models", "fail", weights.name, "pagemill model add")
        with open(weights, "r+b") as f:
            f.truncate(1000)
        self.expect_line(self.examine("--models", models), "models", "fail", weights.name)

    def test_stale_socket(self):
        (self.dir / "run").mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(self.dir / "run" / "client.sock"))
        self.expect_line(self.examine(), "run", "warn", "killed", "rm ")

    def test_limits(self):
        import resource
        done = subprocess.run([PAGEMILL, "doctor", "--json", "--state", self.dir / "state", "--run", self.dir / "run"],
                              capture_output=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
        self.expect_line(json.loads(done.stdout)["checks"], "limits", "fail", "only 256 open files", "ulimit -n")

    def test_no_space(self):
        small = self.dir / "state"
        small.mkdir(mode=0o700)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "none", small], capture_output=True).returncode:
            self.skipTest("no right to mount a small file system")
        self.addCleanup(subprocess.run, ["umount", str(small)], check=False)
        checks = self.examine()
        self.expect_line(checks, "disk", "fail", "takes no jobs", "free space")
        self.expect_line(checks, "state", "warn", "in memory", "--state")

    def test_wedged_broker(self):
        service = Service(self)
        broker, = [pid for pid, line in fleet.fleet_processes(str(self.dir)).items() if line.startswith("pagemill-broker")]
        os.kill(broker, signal.SIGSTOP)
        try:
            self.expect_line(self.examine(), "fleet", "fail", "does not answer", "pagemill logs --process broker")
        finally:
            os.kill(broker, signal.SIGCONT)
        service.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
