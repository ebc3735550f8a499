"""Readers of the GLM-OCR family through the whole fleet: options, confidences, deadlines, cancels.

Texts come from a tiny random model (tests/tiny_checkpoint): noise, but the same noise every time. The small trained reader is
tested when it is in models/mini, a full-size one when PM_FULL_MODEL names its folder (tools/make_full_model.py)."""
import difflib
import json
import os
import pathlib
import subprocess
import unittest

from fleet import BUILD, DATA, KINDS, SOURCE, Case, Service, fleet_processes, out_of, run, wait_until


class Reading(Case):
    def setUp(self):
        super().setUp()
        self.models = f"{self.dir / 'models'}:{SOURCE / 'models'}"

    def add(self, source, name):
        self.expect(run("model", "add", source, "--name", name, "--models", self.models), 0)

    def add_tiny(self, kind):
        subprocess.run([BUILD / "tests" / "tiny_checkpoint", kind, self.dir / f"{kind}-source"], check=True)
        self.add(self.dir / f"{kind}-source", "tiny")

    def parse(self, *args, reader="tiny", out="out", code=None):
        done = run("parse", *args, "--reader", reader, "--models", self.models, "-o", self.dir / out)
        if code is not None:
            self.expect(done, code)
        return done

    def regions(self, stem, out="out"):
        return [region for page in self.pages(self.dir / out, stem) for region in page]

    def files(self, stem, out):
        return [(self.dir / out / stem / f"{stem}.{kind}").read_bytes() for kind in ("md", "json")]


class Tiny(Reading):
    def test_lines(self):
        self.add_tiny("line")
        self.parse(KINDS / "note.png", "--workers", 1, out="one")
        self.parse(KINDS / "note.png", "--workers", 2, "--threads", 2, out="two")
        self.assertEqual(self.files("note", "one"), self.files("note", "two"))
        self.assertEqual(len(self.regions("note", "one")), 2)

    def test_blocks(self):
        self.add_tiny("block")
        self.parse(DATA / "twenty.pdf", "--pages", "1-3", "--workers", 1, "--threads", 2, out="one")
        self.parse(DATA / "twenty.pdf", "--pages", "1-3", "--workers", 2, out="two")
        self.assertEqual(self.files("twenty", "one"), self.files("twenty", "two"))
        regions = self.regions("twenty", "one")
        self.assertGreater(len(regions), 6)
        for region in regions:
            self.assertTrue(0 < region["confidence"] < 1, region)
            self.assertTrue(region["content"])
        self.assertGreater(len({region["content"] for region in regions}), 3)

    def test_options(self):
        self.add_tiny("block")
        note = KINDS / "note.png"
        self.parse(note, out="plain")
        done = self.parse(note, "--max-tokens", 5, out="short", code=1)
        self.assertIn("note.png: 2 regions reached the token limit; raise --max-tokens", done.stderr.decode())
        self.assertIn("1 cut at the token limit", done.stderr.decode())
        self.assertNotIn("could not be read", done.stderr.decode())
        for plain, short in zip(self.regions("note", "plain"), self.regions("note", "short")):
            begin = short["content"].lstrip("# ")
            self.assertLessEqual(len(begin), 3 * 5)
            self.assertTrue(plain["content"].lstrip("# ").startswith(begin))
            self.assertEqual(short["finish"], "length")
            self.assertNotIn("error", short)
        for out, seed in (("a", 1), ("b", 1), ("c", 2)):
            self.parse(note, "--temperature", "1.5", "--seed", seed, out=out)
        self.assertEqual(self.files("note", "a"), self.files("note", "b"))
        self.assertNotEqual(self.files("note", "a"), self.files("note", "c"))
        self.parse(note, "--repetition-penalty", "1.5", out="penalty")
        self.assertNotEqual(self.files("note", "plain"), self.files("note", "penalty"))
        done = self.parse(note, "--temperature", "-1", code=2)
        self.assertIn("--temperature wants a number from 0 to 10", done.stderr.decode())

    def test_whole_pages(self):
        """A page as one text, table or formula: each task has its prompt, its place in the result and its form."""
        self.add_tiny("block")
        found = {}
        for task, label in (("text", "text"), ("table", "table"), ("formula", "display_formula")):
            self.parse(KINDS / "note.png", "--whole", task, out=task)
            (region,) = self.regions("note", task)
            self.assertEqual((region["native_label"], region["bbox_2d"]), (label, [0, 0, 1000, 1000]))
            self.assertTrue(0 < region["confidence"] < 1)
            found[task] = region["content"]
        self.assertTrue(found["formula"].startswith("$$\n") and found["formula"].endswith("\n$$"), found)
        self.assertEqual(len({text.strip("$\n") for text in found.values()}), 3, found)
        done = self.parse(KINDS / "note.png", "--whole", "text", reader="fast")
        self.assertIn("for readers of blocks", done.stderr.decode())
        self.assertIn("--whole is text, table or formula", self.parse("x", "--whole", "page", code=2).stderr.decode())

    def test_memory(self):
        """A worker keeps below its limit; the texts are those of one without; a limit that is too low is said with numbers."""
        self.add_tiny("block")
        self.parse(DATA / "twenty.pdf", "--pages", "1-3", "--workers", 1, out="free")
        fleet = Service(self, workers=1, extra=["--models", self.models, "--reader", "tiny", "--memory", "60"])
        (worker,) = fleet_processes(f"{fleet.run_dir}/work.sock --name worker-1")
        self.parse(DATA / "twenty.pdf", "--pages", "1-3", "--workers", 1, "--memory", 60, out="held")
        self.assertEqual(self.files("twenty", "free"), self.files("twenty", "held"))
        job = fleet.cli("submit", DATA / "twenty.pdf", "--pages", "1-4", "--reader", "tiny").stdout.split()[0].decode()
        most = 0
        def is_done():
            nonlocal most
            status = pathlib.Path(f"/proc/{worker}/status").read_text()
            most = max(most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")))
            return b"done" in fleet.cli("status", job).stdout
        wait_until(is_done, "the job")
        self.assertTrue(0 < most < 60 << 10, most)
        done = self.parse(KINDS / "note.png", "--memory", 8)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("a memory limit of 8 MB is too low", done.stderr.decode())
        self.parse(KINDS / "note.png", "--kv", "int8", out="int8")
        self.assertTrue(all(region["content"] for region in self.regions("note", "int8")))
        self.assertIn("--kv is bf16 or int8", self.parse("x", "--kv", "int7", code=2).stderr.decode())

    def test_pictures_reused(self):
        """A worker says in its log how many crops it knew from identical ones, and --vision-cache 0 keeps none."""
        self.add_tiny("block")
        fleet = Service(self, extra=["--models", self.models])
        texts = []
        for cache, reused in ((None, True), (4, True), (0, False)):
            worker = subprocess.Popen(
                [BUILD / "pagemill-worker", "--endpoint", f"ipc://{fleet.run_dir}/work.sock", "--name", "extra", "--models",
                 self.models, "--reader", "tiny", "--threads", "2", *(["--vision-cache", str(cache)] if cache is not None else [])],
                stderr=subprocess.PIPE)
            self.addCleanup(worker.stderr.close)
            self.addCleanup(worker.wait)
            self.addCleanup(worker.kill)
            for seed in range(2):  # jobs that differ, or the page would be known from an earlier reading
                job = fleet.cli("submit", "--wait", KINDS / "note.png", "-o", self.dir / "out", "--reader", "tiny", "--max-tokens", 30 + len(texts))
                self.assertEqual(job.returncode in (0, 1), True, out_of(job))
                texts.append(job.stdout)
            worker.terminate()
            lines = worker.stderr.read().decode()
            self.assertEqual(worker.wait(), 0, lines)
            self.assertRegex(lines, r"info extra\[\d+\] pictures since the start read=4 reused=" + ("2" if reused else "0") + r"\n")

    def test_region_timeout(self):
        self.add_tiny("endless")
        done = self.parse(KINDS / "note.png", "--temperature", "0.6", "--region-timeout", 1)
        self.assertNotEqual(done.returncode, 0, out_of(done))
        for region in self.regions("note"):
            self.assertEqual(region["error"]["code"], "timeout", out_of(done))
            self.assertIn("longer than 1.0 s", region["error"]["text"])

    def test_cancel(self):
        """A job that would write for minutes ends at once, in the middle of a text; its worker lives and reads the next."""
        self.add_tiny("endless")
        fleet = Service(self, workers=1, extra=["--models", self.models, "--reader", "tiny"])
        workers = fleet_processes(f"{fleet.run_dir}/work.sock --name worker-1")
        job = fleet.cli("submit", DATA / "twenty.pdf", "--reader", "tiny", "--temperature", "0.6", "--partial").stdout.split()[0].decode()
        watch = subprocess.Popen([BUILD / "pagemill", "watch", job, "--partial", "--json", "--socket", fleet.socket],
                                 stdout=subprocess.PIPE)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.stdout.close)
        self.addCleanup(watch.kill)
        text = ""
        for line in watch.stdout:
            event = json.loads(line)
            if event["event"] == "partial":
                text += event["text"]
            if len(text) > 20:
                break
        self.assertGreater(len(text), 20)
        self.expect(fleet.cli("cancel", job), 0)
        wait_until(lambda: b"cancelled" in fleet.cli("status", job).stdout, "the job to be cancelled", 20)
        done = fleet.cli("submit", KINDS / "note.png", "--reader", "tiny", "--max-tokens", 5, "--wait", "-o", self.dir / "next")
        self.assertEqual(len(self.regions("note", "next")), 2, out_of(done))
        self.assertEqual(fleet_processes(f"{fleet.run_dir}/work.sock --name worker-1"), workers)

    def test_two_readers(self):
        """One fleet with two readers: a job that would take for ever does not keep the other's from its pages."""
        self.add_tiny("endless")
        fleet = Service(self, extra=["--models", self.models, "--reader", "tiny:1,fast:1", "--drain", "1"])
        slow = fleet.cli("submit", DATA / "twenty.pdf", "--reader", "tiny", "--temperature", "0.6").stdout.split()[0].decode()
        wait_until(lambda: json.loads(fleet.cli("status", slow, "--json").stdout)["regions"] > 0, "the first regions")
        done = self.expect(fleet.cli("submit", KINDS / "note.png", "--reader", "fast", "--wait", "-o", self.dir / "next"), 0)
        self.assertEqual(len(self.regions("note", "next")), 2, out_of(done))
        self.assertEqual(json.loads(fleet.cli("status", slow, "--json").stdout)["state"], "running")
        # A reader that nobody serves is refused once workers have had their time to come.
        wait_until(lambda: b"there are: " in fleet.cli("submit", KINDS / "note.png", "--reader", "other").stderr,
                   "a reader that is not there to be refused", 30)

    def test_shared_weights(self):
        """Workers map one copy of the weights: a second one adds little of its own."""
        self.add_tiny("endless")
        fleet = Service(self, workers=3, extra=["--models", self.models, "--reader", "tiny"])
        workers = fleet_processes(f"{fleet.run_dir}/work.sock --name worker-")
        self.assertEqual(len(workers), 3)
        weights = (self.dir / "models" / "tiny" / "model.pmw")
        for pid in workers:
            wait_until(lambda: str(weights) in pathlib.Path(f"/proc/{pid}/maps").read_text(), "the weights to be mapped")
            for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
                if str(weights) in line:
                    self.assertEqual(line.split()[1], "r--s", line)


@unittest.skipUnless((SOURCE / "models" / "mini" / "pagemill.json").exists(), "models/mini is not there")
class Mini(Reading):
    def test_reads_print(self):
        self.add(SOURCE / "models" / "mini", "small")
        done = self.parse(KINDS / "note.png", reader="small", code=0)
        self.parse(KINDS / "note.png", reader="fast", out="fast", code=0)
        is_, want = (self.markdown(self.dir / out, "note") for out in ("out", "fast"))
        self.assertGreater(difflib.SequenceMatcher(None, is_, want, autojunk=False).ratio(), 0.8, is_ + out_of(done))
        for region in self.regions("note"):
            self.assertGreater(region["confidence"], 0.5)


@unittest.skipUnless(os.environ.get("PM_FULL_MODEL"), "PM_FULL_MODEL names no folder")
class Full(Reading):
    def test_runs_a_page(self):
        self.add(pathlib.Path(os.environ["PM_FULL_MODEL"]), "glm-ocr")
        done = run("parse", KINDS / "note.png", "--reader", "glm-ocr", "--models", self.models, "--max-tokens", 4, "-o",
                   self.dir / "out", timeout=3600)
        regions = self.regions("note")
        self.assertEqual(len(regions), 2, out_of(done))
        for region in regions:
            self.assertTrue(0 < region["confidence"] < 1, region)
            self.assertTrue(region["content"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
