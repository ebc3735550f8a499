"""A worker killed in the middle of a text loses nothing: the result is that of an undisturbed run, byte for byte."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from fleet import BUILD, DATA, SOURCE, Case, Service, fleet_processes, out_of, run

KILLS = 3
# Long texts, by chance: a text that repeats itself would be ended early.
OPTIONS = ["--reader", "tiny", "--temperature", "0.6", "--seed", "7", "--max-tokens", "1500", "--pages", "1-2"]


class Kill(Case):
    def test_same_result(self):
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
            if event["event"] != "partial" or len(killed) == KILLS:
                continue
            # A text is under way now, in a worker that has not been killed yet.
            for pid in fleet_processes("work.sock --name worker-1"):
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        log = (self.dir / "up.log").read_text()
        self.assertEqual(len(killed), KILLS, log)
        self.assertEqual(log.count("worker-1 ended (killed by signal 9"), KILLS, log)
        done = fleet.cli("result", job, "-o", self.dir / "killed")
        self.assertEqual(self.pages(self.dir / "killed", "twenty"), want, out_of(done))
        self.assertEqual(self.markdown(self.dir / "killed", "twenty"), self.markdown(self.dir / "calm", "twenty"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
