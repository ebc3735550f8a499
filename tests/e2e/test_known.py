"""What was read before is not read again: the same submit gives the first job, an equal page of another document is
taken from the earlier reading, and only a page that changed is read."""
import json
import unittest

from fleet import Case, Service, wait_until

PAGES = 50


def pdf(texts):
    """A PDF of one line of large Helvetica a page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in texts:
        stream = f"BT /F1 24 Tf 20 60 Td ({text}) Tj ET"
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 320 120] /Contents {len(objects) + 2} 0 R "
                       "/Resources << /Font << /F1 3 0 R >> >> >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>"
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    xref = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    out += "".join(f"{at:010d} 00000 n \n" for at in offsets)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n"
    return out.encode()


class Known(Case):
    def fleet_of(self):
        fleet = Service(self)
        # The model is part of what a page's text depends on: only with a worker is it known.
        wait_until(lambda: any(p["role"] == "worker" for p in self.stats(fleet)["peers"]), "a worker")
        return fleet

    def stats(self, fleet):
        return json.loads(self.expect(fleet.cli("top", "--json"), 0).stdout)

    def read_regions(self, fleet):
        return self.stats(fleet)["regions_done"]

    def submit(self, fleet, name, texts, *args):
        path = self.dir / name
        path.write_bytes(pdf(texts))
        out = self.dir / "out"
        self.expect(fleet.cli("submit", path, "--wait", "--dpi", "100", "-o", out, *args), 0)
        return self.markdown(out, path.stem)

    def jobs(self, fleet):
        return json.loads(self.expect(fleet.cli("jobs", "--json"), 0).stdout)

    def test_only_a_changed_page_is_read_again(self):
        fleet = self.fleet_of()
        texts = [f"Entry {n} of the ledger" for n in range(1, PAGES + 1)]
        first = self.submit(fleet, "first.pdf", texts)
        for text in texts:
            self.assertIn(text, first)
        before = self.read_regions(fleet)
        self.assertEqual(before, PAGES)
        texts[16] = "A page that is new here"
        second = self.submit(fleet, "second.pdf", texts)
        self.assertEqual(self.read_regions(fleet), before + 1)
        self.assertIn("A page that is new here", second)
        self.assertEqual(first.replace("Entry 17 of the ledger", "A page that is new here"), second)
        job = self.jobs(fleet)[0]
        self.assertEqual((job["pages_done"], job["pages_known"]), (PAGES, PAGES - 1))
        # A page may move: its number is not part of it.
        third = self.submit(fleet, "third.pdf", texts[30:34])
        self.assertEqual(self.read_regions(fleet), before + 1)
        self.assertEqual(third.count("of the ledger"), 4)
        # Asked to read anew, everything is.
        again = self.submit(fleet, "again.pdf", texts[:3], "--again")
        self.assertEqual(self.read_regions(fleet), before + 4)
        self.assertEqual(again.count("of the ledger"), 3)

    def test_the_same_submit_gives_the_first_job(self):
        fleet = self.fleet_of()
        texts = ["One page", "Another page"]
        self.submit(fleet, "same.pdf", texts)
        self.submit(fleet, "same.pdf", texts)  # delivers the first job's result once more
        self.assertEqual(len(self.jobs(fleet)), 1)
        self.submit(fleet, "same.pdf", texts, "--pages", "2")  # other options: another job
        self.assertEqual(len(self.jobs(fleet)), 2)
        self.submit(fleet, "same.pdf", texts, "--again")
        self.assertEqual(len(self.jobs(fleet)), 3)

    def test_a_job_that_failed_does_not_stand_for_the_next(self):
        fleet = self.fleet_of()
        path = self.dir / "bad.pdf"
        path.write_bytes(b"%PDF-1.7 nothing else")
        for _ in range(2):
            self.expect(fleet.cli("submit", path, "--wait", "-o", self.dir / "out"), 1)
        self.assertEqual([job["state"] for job in self.jobs(fleet)], ["failed", "failed"])


if __name__ == "__main__":
    unittest.main()
