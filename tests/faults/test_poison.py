"""What kills its worker, hangs it, finds no memory or cannot be read: everything else of the document is delivered, the
log of attempts says what happened, and retry brings back what failed once the cause is gone."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import fleet as e2e
from fleet import BUILD, DATA, Case, Service


class Poison(Case):
    def setUp(self):
        super().setUp()
        # Programs are found beside `pagemill`: a folder where the worker is another one.
        self.bin = self.dir / "bin"
        self.bin.mkdir()
        shutil.copy(BUILD / "pagemill", self.bin / "pagemill")
        for name in ("broker", "layoutd", "collector", "decode"):
            os.symlink(BUILD / f"pagemill-{name}", self.bin / f"pagemill-{name}")
        os.symlink(BUILD / "tests" / "poison_worker", self.bin / "pagemill-worker")
        before = e2e.PAGEMILL
        e2e.PAGEMILL = str(self.bin / "pagemill")
        self.addCleanup(setattr, e2e, "PAGEMILL", before)

    def test_poison_region(self):
        fleet = Service(self, workers=2)
        done = fleet.cli("submit", DATA / "twenty.pdf", "--pages", "1-3", "--wait", "-o", self.dir / "out")
        log = (self.dir / "up.log").read_text()
        pages = self.pages(self.dir / "out", "twenty")
        self.assertEqual(len(pages), 3, log)
        regions = [(number, region) for number, page in enumerate(pages, 1) for region in page]
        failed = [(number, region) for number, region in regions if region.get("error")]
        self.assertEqual([number for number, _ in failed], [2], e2e.out_of(done))
        self.assertGreater(len(regions), 5)
        text = self.markdown(self.dir / "out", "twenty")
        self.assertIn("crop 0", text)
        self.assertIn("crop 4", text)
        # Two crashes and no more: neighbours in the batch did not die again.
        self.assertEqual(log.count("killed by signal 6"), 2, log)
        status = fleet.cli("status", "1").stdout.decode()
        self.assertIn("set aside", status)
        self.assertIn("2 times", status)

    # ---- poison that is taken away ----

    def poison(self, what):
        """A fleet whose worker meets `what` at crop 3 of page 2."""
        self.file = self.dir / "poison"
        self.file.write_text(f"2 3 {what}\n")
        os.environ["PM_POISON"] = str(self.file)
        self.addCleanup(os.environ.pop, "PM_POISON")
        return Service(self, workers=1)

    def read_pages(self, fleet):
        done = fleet.cli("submit", DATA / "twenty.pdf", "--pages", "1-3", "--wait", "-o", self.dir / "out")
        return done, self.job(fleet)

    def job(self, fleet):
        status = json.loads(self.expect(fleet.cli("status", "1", "--json"), 0).stdout)
        return status[0] if isinstance(status, list) else status

    def attempts(self, job):
        """Of the region in question; each says who had it."""
        found = [a for a in job["attempts"] if (a["page"], a["region"]) == (2, 4)]
        for attempt in found:
            self.assertEqual(attempt["kind"], "region")
            self.assertTrue(attempt["peer"].startswith("worker"), attempt)
            self.assertTrue(attempt["version"], attempt)
        return [attempt["cause"] for attempt in found]

    def bring_back(self, fleet, attempts):
        """The poison is gone: retry reads what failed, and twice asked means once."""
        self.file.unlink()
        self.expect(fleet.cli("retry", "1"), 0)
        self.expect(fleet.cli("retry", "1"), 0)
        whole = lambda job: job["state"] == "done" and not job["regions_failed"]
        e2e.wait_until(lambda: whole(self.job(fleet)), "what failed to be read")
        job = self.job(fleet)
        self.assertEqual(self.attempts(job), attempts)  # the log stays
        self.assertEqual(job["pages_done"], 3)
        self.expect(fleet.cli("result", "1", "-o", self.dir / "again"), 0)
        self.assertFalse([r for page in self.pages(self.dir / "again", "twenty") for r in page if r.get("error")])

    def test_crash_is_set_aside_and_comes_back(self):
        fleet = self.poison("crash")
        _, job = self.read_pages(fleet)
        self.assertEqual((job["state"], job["pages_done"], job["regions_failed"]), ("done", 3, 1))
        self.assertEqual(self.attempts(job), ["crash", "crash"])
        self.bring_back(fleet, ["crash", "crash"])

    def test_bad_input_is_not_tried_again(self):
        fleet = self.poison("input")
        _, job = self.read_pages(fleet)
        self.assertEqual((job["state"], job["pages_done"], job["regions_failed"]), ("done", 3, 1))
        self.assertEqual(self.attempts(job), ["input"])
        self.assertEqual(job["retries"], 0)
        self.bring_back(fleet, ["input"])

    def test_no_memory_is_tried_again(self):
        fleet = self.poison("memory")
        done, job = self.read_pages(fleet)
        self.expect(done, 0)
        self.assertEqual((job["state"], job["pages_done"], job["regions_failed"]), ("done", 3, 0))
        self.assertEqual(self.attempts(job), ["resources", "resources"])

    def test_hanging_worker_is_replaced(self):
        fleet = self.poison("hang")
        done, job = self.read_pages(fleet)
        self.expect(done, 0)
        self.assertEqual((job["state"], job["pages_done"], job["regions_failed"]), ("done", 3, 0))
        self.assertEqual(self.attempts(job), ["timeout"])
        self.assertFalse(self.file.exists())

    def test_many_poisoned_documents_do_not_end_the_fleet(self):
        """Ten deaths in a row of a worker that cannot start are the end; of one that dies of its work they are not."""
        fleet = Service(self, workers=1)
        for number in range(12):  # each dies alone once, however they share the first death
            self.expect(fleet.cli("submit", DATA / "twenty.pdf", "--pages", "2", "--again", "--batch", "poison"), 0)
        states = lambda: {job["state"] for job in json.loads(self.expect(fleet.cli("jobs", "--json"), 0).stdout)}
        e2e.wait_until(lambda: states() == {"done"}, "the documents to be delivered")
        log = (self.dir / "up.log").read_text()
        self.assertGreaterEqual(log.count("killed by signal 6"), 11, log)
        self.assertIsNone(fleet.process.poll(), log)


if __name__ == "__main__":
    unittest.main(verbosity=2)
