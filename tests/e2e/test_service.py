"""The fleet as a service: up, submit, jobs, status, watch, result, cancel, retry, down; restarts and refusals."""
import json
import os
import shutil
import signal
import subprocess
import unittest

from fleet import DATA, KINDS, PAGEMILL, Case, Service, fleet_processes, run, wait_until


class Fleet(Case):
    def submit(self, fleet, *args):
        done = self.expect(fleet.cli("submit", *args), 0)
        return done.stdout.decode()

    def jobs(self, fleet):
        return json.loads(self.expect(fleet.cli("jobs", "--json"), 0).stdout)

    def only_job(self, fleet):
        jobs = self.jobs(fleet)
        self.assertEqual(len(jobs), 1, jobs)
        return jobs[0]

    def test_submit_wait_and_result(self):
        fleet = Service(self)
        self.expect(fleet.cli("submit", KINDS / "note.pdf", "--wait", "-o", self.dir / "out"), 0)
        self.assertIn("painted green", " ".join(self.markdown(self.dir / "out", "note").split()))
        job = self.only_job(fleet)
        self.assertEqual(job["state"], "done")
        self.expect(fleet.cli("result", job["job"], "-o", self.dir / "again"), 0)
        self.assertEqual(self.markdown(self.dir / "out", "note"), self.markdown(self.dir / "again", "note"))
        self.expect(fleet.cli("status", job["job"]), 0)

    def test_detached_submit_watch(self):
        fleet = Service(self)
        self.submit(fleet, DATA / "twenty.pdf", "--pages", "1-3")
        job = self.only_job(fleet)["job"]
        self.expect(fleet.cli("watch", job), 0)
        self.assertEqual(self.only_job(fleet)["state"], "done")

    def test_failed_job_and_retry(self):
        (self.dir / "bad.pdf").write_bytes(b"%PDF-1.7 nothing else")
        fleet = Service(self)
        self.expect(fleet.cli("submit", self.dir / "bad.pdf", "--wait", "-o", self.dir / "out"), 1)
        job = self.only_job(fleet)
        self.assertEqual(job["state"], "failed")
        self.assertTrue(job["error"])
        self.expect(fleet.cli("retry", job["job"]), 0)
        wait_until(lambda: self.only_job(fleet)["state"] == "failed", "the retried job to fail again")

    def test_cancel(self):
        fleet = Service(self)
        self.submit(fleet, DATA / "twenty.pdf")
        job = self.only_job(fleet)["job"]
        self.expect(fleet.cli("cancel", job), 0)
        wait_until(lambda: self.only_job(fleet)["state"] in ("cancelled", "done"), "the job to end")

    def test_idempotency_key(self):
        fleet = Service(self)
        for _ in range(2):
            self.submit(fleet, KINDS / "note.png", "--key", "once")
        self.only_job(fleet)

    def test_survives_restart_of_the_whole_fleet(self):
        fleet = Service(self)
        self.submit(fleet, DATA / "twenty.pdf")
        pids = fleet_processes(str(fleet.run_dir))
        os.kill(fleet.process.pid, signal.SIGKILL)
        fleet.process.wait()
        wait_until(lambda: not set(pids) & set(fleet_processes(str(fleet.run_dir))), "the old fleet to go")
        fleet = Service(self)
        job = self.only_job(fleet)["job"]
        self.expect(fleet.cli("watch", job), 0)
        self.assertEqual(self.only_job(fleet)["state"], "done")
        self.expect(fleet.cli("result", job, "-o", self.dir / "out"), 0)
        self.assertIn("Section 20 of the register", self.markdown(self.dir / "out", "twenty"))

    def test_second_fleet_is_refused(self):
        Service(self)
        done = run("up", "--state", self.dir / "state", "--run", self.dir / "run2", timeout=30)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.decode().strip())

    def test_down_leaves_nothing(self):
        fleet = Service(self)
        pids = fleet_processes(str(fleet.run_dir))
        self.assertGreaterEqual(len(pids), 4)
        self.expect(fleet.cli("down"), 0)
        fleet.process.wait(timeout=60)
        self.assertEqual(fleet.process.returncode, 0)
        self.assertEqual(fleet_processes(str(fleet.run_dir)), {})
        self.assertFalse(fleet.socket.exists())

    def test_top(self):
        fleet = Service(self)
        def shown():
            return self.expect(fleet.cli("top", "--once"), 0).stdout.decode()
        for name in ("layoutd", "worker", "collector"):  # services join a moment after the broker serves
            wait_until(lambda: name in shown(), f"{name} in top")

    def test_no_fleet(self):
        for command in (("jobs",), ("status", "1"), ("submit", KINDS / "note.png"), ("down",)):
            with self.subTest(command=command[0]):
                done = run(*command, "--socket", self.dir / "nowhere.sock", timeout=30)
                self.assertEqual(done.returncode, 3, done.stderr.decode())
                self.assertIn("up", done.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
