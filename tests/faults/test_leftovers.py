"""`pagemill up` killed with SIGKILL in the middle of its work: its processes go at once, and what it left in the file
system (sockets, pictures in memory) goes with the next start."""
import hashlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from fleet import DATA, Case, Service, fleet_processes, wait_until


def pixel_folders(run_dir):
    """Where `up` keeps page pictures of the fleet of this run folder (client/cli/cmd_up.c)."""
    name = "up-" + hashlib.blake2b(str(run_dir).encode(), digest_size=32).hexdigest()[:12]
    parents = {"/dev/shm", tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR") or "/tmp"}
    return [p for parent in parents if os.path.isdir(parent)
            for p in pathlib.Path(parent).glob(f"pagemill-{os.getuid()}-{name}")]


def files_in(folders):
    return [p for folder in folders for p in folder.rglob("*") if p.is_file() and "lock" not in p.name]


class Leftovers(Case):
    def kill_busy_fleet(self):
        """Kills the supervisor while crops are in memory; returns its processes."""
        fleet = Service(self, workers=2)
        self.expect(fleet.cli("submit", DATA / "twenty.pdf"), 0)
        wait_until(lambda: files_in(pixel_folders(fleet.run_dir)), "crops in memory")
        pids = fleet_processes(str(fleet.run_dir))
        self.assertGreaterEqual(len(pids), 5)
        os.kill(fleet.process.pid, signal.SIGKILL)
        fleet.process.wait()
        wait_until(lambda: not fleet_processes(str(fleet.run_dir)), "the processes to go with their supervisor", 10)
        return fleet

    def test_same_folders_again(self):
        self.kill_busy_fleet()
        fleet = Service(self)
        self.expect(fleet.cli("watch", "1"), 0)
        self.assertEqual(fleet.stop(), 0)
        self.assertEqual(fleet_processes(str(fleet.run_dir)), {})
        self.assertEqual(pixel_folders(fleet.run_dir), [])
        self.assertFalse(fleet.run_dir.exists(), list(self.dir.glob("run/*")))
        leftovers = [p for p in (self.dir / "state").rglob("tmp/*")]
        self.assertLessEqual(len(leftovers), 4, leftovers)  # documents half copied: swept a minute later

    def test_another_fleet_sweeps(self):
        killed = self.kill_busy_fleet()
        self.assertTrue(pixel_folders(killed.run_dir))
        other = Case()
        other.setUp()
        try:
            Service(other)
            self.assertEqual(pixel_folders(killed.run_dir), [])
        finally:
            other.doCleanups()
        shutil.rmtree(killed.run_dir, ignore_errors=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
