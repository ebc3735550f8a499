"""The state folder on a disk that is full for a while: new jobs are refused with the reason, running ones wait, the
broker may even be killed meanwhile, and once there is room everything completes. Needs the right to mount a tmpfs."""
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import fleet as e2e
from fleet import DATA, KINDS, Case, Service, fleet_processes, wait_until

DISK_MB = 160
LAST = 6  # jobs


def mount(folder):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", folder],
                          capture_output=True)


def unmount(folder):
    subprocess.run(["umount", "-l", folder], capture_output=True)


class DiskFull(Case):
    def setUp(self):
        super().setUp()
        self.state = self.dir / "state"
        self.state.mkdir(mode=0o700)
        self.assertEqual(mount(self.state).returncode, 0)
        self.addCleanup(unmount, self.state)

    def log(self):
        return (self.dir / "up.log").read_text()

    def told(self, what):
        return self.log().count(what)

    def fill(self, name):
        with open(self.state / name, "wb", buffering=0) as filler:
            for size in (1 << 20, 4096):
                try:
                    while filler.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def job(self, fleet, number):
        done = fleet.cli("status", str(number), "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def kill_broker(self, fleet):
        for pid, line in fleet_processes(str(fleet.run_dir)).items():
            if "pagemill-broker" in line.split()[0]:
                os.kill(pid, signal.SIGKILL)

    def test_full_for_a_while(self):
        fleet = Service(self, workers=2)
        # Enough that a fast machine is not done before the disk is full, and each at a resolution of its own: equal
        # pages are stored once and would need no room.
        for number in range(LAST):
            self.expect(fleet.cli("submit", DATA / "twenty.pdf", "--dpi", 180 + number), 0)
        wait_until(lambda: self.job(fleet, 1).get("state") == "running", "the first job to run")
        self.fill("filler-1")
        # It cannot go on, and says so; this is not its end.
        wait_until(lambda: self.told("no-space") or self.told("waiting for room"), "the lack of space to be told")
        refused = fleet.cli("submit", KINDS / "note.pdf")
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr.decode().lower(), "no space", e2e.out_of(refused))
        # A broker that is killed now starts again with its reserve, and when that is gone too, it waits.
        self.kill_broker(fleet)
        wait_until(lambda: self.job(fleet, 1), "the next broker to serve")
        self.fill("filler-2")
        waits = self.told("waiting for room")
        cancel = subprocess.Popen([e2e.PAGEMILL, "cancel", str(LAST), "--socket", fleet.socket], stderr=subprocess.DEVNULL)
        wait_until(lambda: self.told("waiting for room") > waits, "a broker that cannot write the cancellation")
        self.assertIsNone(cancel.poll())  # not confirmed while it is not written
        self.kill_broker(fleet)
        wait_until(lambda: self.told("waiting for room") > waits + 1, "a broker that cannot even start")
        self.assertIsNone(fleet.process.poll(), self.log())
        for filler in self.state.glob("filler-*"):
            filler.unlink()
        self.assertEqual(cancel.wait(timeout=60), 0, self.log())
        self.assertEqual(self.job(fleet, LAST)["state"], "cancelled")
        self.expect(fleet.cli("watch", "1"), 0)
        self.expect(fleet.cli("result", "1", "-o", self.dir / "out"), 0)
        text = self.markdown(self.dir / "out", "twenty")
        for number in range(1, 21):
            self.assertIn(f"Section {number} of the register", text)
        job = self.job(fleet, 1)
        self.assertEqual((job["pages_done"], job["pages_failed"], job["regions_failed"]), (20, 0, 0))
        wait_until(lambda: fleet.cli("submit", KINDS / "note.pdf").returncode == 0, "new jobs to be taken")
        # With a little room a client can store its document, and the broker says no, counts it, and means it for now.
        room = os.statvfs(self.state)
        with open(self.state / "filler-3", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize - (30 << 20))
        dpi = itertools.count(100)  # equal submits would be answered with the first job
        submit = lambda: fleet.cli("submit", KINDS / "note.png", "--dpi", next(dpi))
        wait_until(lambda: b"mb free" in submit().stderr.lower(), "a refusal")
        counters = json.loads(self.expect(fleet.cli("top", "--json"), 0).stdout)["counters"]
        self.assertGreater(counters["refused_disk_full"], 0, counters)
        self.assertGreaterEqual(counters["refused_submits"], counters["refused_disk_full"])
        (self.state / "filler-3").unlink()
        wait_until(lambda: submit().returncode == 0, "new jobs to be taken again")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="pm-mount-") as probe:
        tried = mount(probe)
        unmount(probe)
    if tried.returncode:
        print("skipped: no tmpfs can be mounted here:", tried.stderr.decode().strip())
        sys.exit(77)
    unittest.main(verbosity=2)
