"""A worker or the broker killed in the middle of a text loses nothing: the result is that of an undisturbed run, byte for byte."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from fleet import BUILD, DATA, SOURCE, Case, Service, fleet_processes, out_of, run, wait_until

KILLS = 3
# Long texts, by chance: a text that repeats itself would be ended early.
OPTIONS = ["--reader", "tiny", "--temperature", "0.6", "--seed", "7", "--max-tokens", "1500", "--pages", "1-2"]


class Kill(Case):
    def read_with_kills(self, process, kills):
        """Reads twice, once in peace and once with so many kills of that process amid texts: the same bytes."""
        models = f"{self.dir / 'models'}:{SOURCE / 'models'}"
        subprocess.run([BUILD / "tests" / "tiny_checkpoint", "endless", self.dir / "source"], check=True)
        self.expect(run("model", "add", self.dir / "source", "--name", "tiny", "--models", models), 0)
        run("parse", DATA / "twenty.pdf", *OPTIONS, "--models", models, "-o", self.dir / "calm")
        want = self.pages(self.dir / "calm", "twenty")
        self.assertGreater(sum(len(page) for page in want), 3)
        self.assertGreater(sum(len(region["content"]) for page in want for region in page), 4000)

        fleet = Service(self, workers=1, extra=["--models", models, "--reader", "tiny"])
        job = fleet.cli("submit", DATA / "twenty.pdf", *OPTIONS, "--partial").stdout.split()[0].decode()
        watch = subprocess.Popen([BUILD / "pagemill", "watch", job, "--partial", "--json", "--socket", fleet.socket],
                                 stdout=subprocess.PIPE)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.stdout.close)
        self.addCleanup(watch.kill)
        killed = set()
        for line in watch.stdout:
            event = json.loads(line)
            if event["event"] == "state" and event["state"] in ("done", "failed"):
                break
            if event["event"] != "partial" or len(killed) == kills:
                continue
            # A text is under way now; the process is one of this fleet that has not been killed yet.
            for pid, command in fleet_processes(str(fleet.run_dir)).items():
                if process in command and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        log = (self.dir / "up.log").read_text()
        self.assertEqual(len(killed), kills, log)
        self.assertEqual(log.count(f"{process} ended (killed by signal 9"), kills, log)
        wait_until(lambda: b"done" in fleet.cli("status", job).stdout, "the job to be done")
        done = fleet.cli("result", job, "-o", self.dir / "killed")
        self.assertEqual(self.pages(self.dir / "killed", "twenty"), want, out_of(done))
        self.assertEqual(self.markdown(self.dir / "killed", "twenty"), self.markdown(self.dir / "calm", "twenty"))

    def test_workers(self):
        self.read_with_kills("worker-1", KILLS)

    def test_broker(self):
        self.read_with_kills("broker", 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
