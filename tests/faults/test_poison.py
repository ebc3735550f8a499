"""A region that kills its worker is set aside after two crashes; everything else of the document is read."""
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

    def test_many_poisoned_documents_do_not_end_the_fleet(self):
        """Ten deaths in a row of a worker that cannot start are the end; of one that dies of its work they are not."""
        fleet = Service(self, workers=1)
        for number in range(6):
            self.expect(fleet.cli("submit", DATA / "twenty.pdf", "--pages", "2", "--again", "--batch", "poison"), 0)
        states = lambda: {job["state"] for job in json.loads(self.expect(fleet.cli("jobs", "--json"), 0).stdout)}
        e2e.wait_until(lambda: states() == {"done"}, "the documents to be delivered")
        log = (self.dir / "up.log").read_text()
        self.assertGreaterEqual(log.count("killed by signal 6"), 11, log)
        self.assertIsNone(fleet.process.poll(), log)


if __name__ == "__main__":
    unittest.main(verbosity=2)
