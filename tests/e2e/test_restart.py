"""Rolling restarts under load: every process is replaced several times, no request fails, nothing is lost or doubled.

PM_RESTARTS=N makes N rounds instead of the short form's."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import unittest

import fleet as e2e
from fleet import BUILD, DATA, Case, SLOW, Service, fleet_processes, run, wait_until

ROUNDS = int(os.environ.get("PM_RESTARTS", "4"))
CLIENT = BUILD / "tests" / "steady_client"
DOCUMENT = DATA / "twenty.pdf"


class Restart(Case):
    def pids(self, fleet):
        found = {}
        for pid, line in fleet_processes(str(fleet.run_dir)).items():
            name = re.search(r"--name (\S+)", line)
            if "pagemill-broker" in line:
                found["broker"] = pid
            elif name:
                found[name.group(1)] = pid
        return found

    def reference(self, fleet):
        """One page each, read in peace."""
        folder = self.dir / "reference"
        folder.mkdir()
        for page in range(1, 5):
            out = self.dir / f"page-{page}"
            self.expect(fleet.cli("submit", DOCUMENT, "--pages", page, "--wait", "-o", out), 0)
            shutil.copy(out / "twenty" / "twenty.md", folder / f"{page}.md")
        return folder

    def test_every_process_under_load(self):
        fleet = Service(self, workers=2)
        reference = self.reference(fleet)
        before = self.pids(fleet)
        said = [self.dir / f"{how}.out" for how in ("local", "remote", "pipe")]
        clients = []
        for out in said:
            with open(out, "wb") as file:
                clients.append(subprocess.Popen([str(CLIENT), str(fleet.socket), out.stem, out.stem, str(DOCUMENT),
                                                 str(reference)], stdin=subprocess.PIPE, stdout=file))
        for client in clients:
            self.addCleanup(lambda c: (c.poll() is None and c.kill(), c.stdin.close(), c.wait()), client)
        over, failures, commands = threading.Event(), [], []

        def command_lines():  # whole programs, one after another: none may find the fleet missing
            while not over.is_set():
                done = fleet.cli("submit", DOCUMENT, "--pages", 2, "--again", "--batch", "commands")
                if done.returncode:
                    failures.append(e2e.out_of(done))
                commands.append(1)
                done = fleet.cli("jobs", "--json")
                if done.returncode:
                    failures.append(e2e.out_of(done))
                over.wait(1)

        thread = threading.Thread(target=command_lines)
        thread.start()
        self.addCleanup(over.set)
        for number in range(ROUNDS):
            lines = [out.read_bytes().count(b"\n") for out in said]
            if number % 2:  # the signal does what the command does
                seen = self.pids(fleet)
                fleet.process.send_signal(signal.SIGHUP)
                wait_until(lambda: all(self.pids(fleet).get(name) not in (None, pid) for name, pid in seen.items()),
                           "all processes to be other ones")
                wait_until(lambda: (self.dir / "up.log").read_text().count(" processes restarted") > number, "the end")
            else:
                done = self.expect(fleet.cli("restart"), 0)
                self.assertIn("broker restarted", done.stdout.decode())
            wait_until(lambda: any(c.poll() is not None for c in clients) or
                       any(out.read_bytes().count(b"\n") > n for out, n in zip(said, lines)), "a client's next round")
            self.assertEqual([c.poll() for c in clients], [None] * 3, [out.read_text() for out in said])
        over.set()
        thread.join()
        self.assertEqual(failures, [])
        counts = []
        for client, out in zip(clients, said):
            client.stdin.close()
            self.assertEqual(client.wait(timeout=120 * SLOW), 0, out.read_text())
            counts.append([int(n) for n in out.read_text().splitlines()[-1].split()])
        print(f"{ROUNDS} restarts of {len(before)} processes, documents read by each client: {[n for n, _ in counts]}, "
              f"by command lines: {len(commands)}")
        after = self.pids(fleet)
        self.assertEqual(set(after), set(before))
        for name, pid in after.items():
            self.assertNotEqual(pid, before[name], name)
        # Nothing doubled, nothing lost: as many jobs as were made, all of them read.
        wait_until(lambda: all(j["state"] == "done" for j in self.jobs(fleet)), "all jobs to end")
        jobs = self.jobs(fleet)
        self.assertEqual(len(jobs), 4 + sum(made for _, made in counts) + len(commands))
        self.assertEqual([j for j in jobs if j.get("pages_failed") or j.get("regions_failed")], [])

    def jobs(self, fleet):
        return json.loads(self.expect(fleet.cli("jobs", "--json", "--limit", 1000), 0).stdout)

    def test_one_process(self):
        fleet = Service(self, workers=2)
        wait_until(lambda: len(self.pids(fleet)) == 5, "five processes")
        before = self.pids(fleet)
        done = self.expect(fleet.cli("restart", "worker-2"), 0)
        self.assertIn(f"was={before['worker-2']}", done.stdout.decode())
        after = self.pids(fleet)
        self.assertEqual({n for n in after if after[n] != before[n]}, {"worker-2"})
        self.expect(fleet.cli("restart", "worker"), 0)
        changed = self.pids(fleet)
        self.assertEqual({n for n in changed if changed[n] != after[n]}, {"worker-1", "worker-2"})
        done = self.expect(fleet.cli("restart", "worker-9"), 1)
        self.assertIn("worker-9", done.stderr.decode())

    def test_a_bad_upgrade_leaves_the_old_ones(self):
        # Programs are found beside `pagemill`: a folder where the worker can be exchanged.
        folder = self.dir / "bin"
        folder.mkdir()
        shutil.copy(BUILD / "pagemill", folder / "pagemill")
        for name in ("broker", "layoutd", "collector", "decode", "worker"):
            os.symlink(BUILD / f"pagemill-{name}", folder / f"pagemill-{name}")
        before = e2e.PAGEMILL
        e2e.PAGEMILL = str(folder / "pagemill")
        self.addCleanup(setattr, e2e, "PAGEMILL", before)
        fleet = Service(self, extra=("--models", os.pathsep.join(
            str(p) for p in (BUILD / "models", e2e.SOURCE / "models") if p.is_dir())))
        wait_until(lambda: len(self.pids(fleet)) == 4, "four processes")
        old = self.pids(fleet)
        worker = folder / "pagemill-worker"
        worker.unlink()
        worker.write_text("#!/bin/sh\necho this is no worker >&2\nexit 78\n")
        worker.chmod(0o755)
        done = self.expect(fleet.cli("restart"), 1)
        self.assertIn("worker-1", done.stderr.decode())
        self.assertIn("the old one goes on", done.stderr.decode())
        self.assertEqual(self.pids(fleet), old)
        self.expect(fleet.cli("submit", e2e.KINDS / "note.png", "--wait", "-o", self.dir / "out"), 0)
        worker.unlink()
        os.symlink(BUILD / "pagemill-worker", worker)
        self.expect(fleet.cli("restart", "worker"), 0)
        self.assertNotEqual(self.pids(fleet)["worker-1"], old["worker-1"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
