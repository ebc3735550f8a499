"""pagemill parse, through real processes on real files: every input kind, every bad input, nothing left behind."""
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import unittest
import zlib

from fleet import DATA, KINDS, PAGEMILL, SOURCE, Case, fleet_processes, run, wait_until

WORDS = ("Meeting of the garden committee", "painted green on 14 April", "555 0142")


class Inputs(Case):
    def check_note(self, text):
        flat = " ".join(text.split())
        for words in WORDS:
            self.assertIn(words, flat)

    def test_every_kind(self):
        files = [KINDS / f"note.{k}" for k in ("pdf", "png", "jpg", "webp", "bmp", "gif", "tif")]
        copies = []
        for f in files:  # one stem each, so that outputs have names of their own
            copies.append(self.dir / f"note-{f.suffix[1:]}{f.suffix}")
            shutil.copy(f, copies[-1])
        self.expect(run("parse", *copies, "-o", self.dir / "out"), 0)
        for f in copies:
            with self.subTest(f.name):
                self.check_note(self.markdown(self.dir / "out", f.stem))
        self.assertEqual(len(self.pages(self.dir / "out", "note-tif")), 2)

    def test_json_layout(self):
        self.expect(run("parse", KINDS / "note.png", "-o", self.dir / "out"), 0)
        pages = self.pages(self.dir / "out", "note")
        self.assertEqual(len(pages), 1)
        self.assertTrue(pages[0])
        for i, region in enumerate(pages[0]):
            self.assertEqual(region["index"], i)
            for key in ("label", "native_label", "content", "bbox_2d", "polygon", "confidence"):
                self.assertIn(key, region)
            left, top, right, bottom = region["bbox_2d"]
            self.assertTrue(0 <= left < right <= 1000 and 0 <= top < bottom <= 1000, region["bbox_2d"])
            self.assertTrue(0 < region["confidence"] <= 1)

    def test_folder_keeps_hierarchy(self):
        (self.dir / "in/a/b").mkdir(parents=True)
        shutil.copy(KINDS / "note.png", self.dir / "in/first.png")
        shutil.copy(KINDS / "note.jpg", self.dir / "in/a/b/second.jpg")
        (self.dir / "in/a/readme.txt").write_text("not a document")
        self.expect(run("parse", self.dir / "in", "-o", self.dir / "out"), 0)
        found = sorted(str(p.relative_to(self.dir / "out")) for p in (self.dir / "out").rglob("*.md"))
        self.assertEqual(len(found), 2, found)
        self.assertTrue(any(p.endswith("first/first.md") for p in found), found)
        self.assertTrue(any(p.endswith("a/b/second/second.md") for p in found), found)

    def test_stdin_stdout(self):
        done = self.expect(run("parse", "-", "--stdout", "--no-save", stdin=(KINDS / "note.png").read_bytes(),
                               cwd=self.dir), 0)
        self.check_note(done.stdout.decode())
        self.assertEqual([p for p in self.dir.rglob("*") if p.is_file()], [])

    def test_files_from(self):
        shutil.copy(KINDS / "note.png", self.dir / "one.png")
        shutil.copy(KINDS / "note.jpg", self.dir / "two.jpg")
        (self.dir / "list").write_text(f"{self.dir}/one.png\n\n{self.dir}/two.jpg\n")
        self.expect(run("parse", "--files-from", self.dir / "list", "-o", self.dir / "out"), 0)
        self.check_note(self.markdown(self.dir / "out", "one"))
        self.check_note(self.markdown(self.dir / "out", "two"))

    def test_pages(self):
        self.expect(run("parse", DATA / "twenty.pdf", "--pages", "3,19-20", "-o", self.dir / "out"), 0)
        text = self.markdown(self.dir / "out", "twenty")
        order = [text.find(f"Section {n} of the register") for n in (3, 19, 20)]
        self.assertNotIn(-1, order)
        self.assertEqual(order, sorted(order))
        self.assertNotIn("Section 4 ", text)

    def test_formats(self):
        self.expect(run("parse", KINDS / "note.png", "--format", "txt", "-o", self.dir / "out"), 0)
        names = sorted(p.name for p in (self.dir / "out/note").iterdir())
        self.assertEqual(names, ["note.txt"])
        self.check_note((self.dir / "out/note/note.txt").read_text())

    def test_same_stem_twice(self):
        self.expect(run("parse", KINDS / "note.png", KINDS / "note.jpg", "-o", self.dir / "out"), 0)
        self.assertEqual(len(list((self.dir / "out").rglob("*.md"))), 2)

    def test_blank_page_is_empty(self):
        self.expect(run("parse", KINDS / "blank.png", "-o", self.dir / "out"), 0)
        self.assertEqual(self.pages(self.dir / "out", "blank"), [[]])

    def test_password(self):
        self.expect(run("parse", KINDS / "locked.pdf", "--password", "sesame", "-o", self.dir / "out"), 0)
        self.check_note(self.markdown(self.dir / "out", "locked"))

    def test_same_bytes_twice(self):
        for out in ("one", "two"):
            self.expect(run("parse", KINDS / "note.jpg", "-o", self.dir / out, "--workers", 2), 0)
        for name in ("note.md", "note.json"):
            self.assertEqual((self.dir / "one/note" / name).read_bytes(), (self.dir / "two/note" / name).read_bytes())


class Bad(Case):
    """Each bad file: one line that names it and says why; exit 1; its neighbour is delivered."""

    def refuse(self, path, *reasons, args=(), env=None):
        good = self.dir / "good.png"
        shutil.copy(KINDS / "note.png", good)
        done = self.expect(run("parse", path, good, *args, "-o", self.dir / "out", env=env), 1)
        lines = [l for l in done.stderr.decode().splitlines() if pathlib.Path(path).name in l]
        self.assertEqual(len(lines), 1, done.stderr.decode())
        for reason in reasons:
            self.assertRegex(lines[0].lower(), reason)
        self.assertTrue((self.dir / "out/good/good.md").exists(), "the good neighbour was not delivered")

    def write(self, name, data):
        path = self.dir / name
        path.write_bytes(data)
        return path

    def test_empty_file(self):
        self.refuse(self.write("empty.pdf", b""), "empty")

    def test_not_a_document(self):
        self.refuse(self.write("letter.pdf", b"dear reader, this is not a pdf at all"), "not a")

    def test_wrong_extension_is_fine(self):
        shutil.copy(KINDS / "note.png", self.dir / "photo.jpg")
        self.expect(run("parse", self.dir / "photo.jpg", "-o", self.dir / "out"), 0)
        self.assertTrue((self.dir / "out/photo/photo.md").exists())

    def test_truncated_pdf(self):
        self.refuse(self.write("cut.pdf", (KINDS / "note.pdf").read_bytes()[:900]), "pdf")

    def test_truncated_png(self):
        self.refuse(self.write("cut.png", (KINDS / "note.png").read_bytes()[:40]), "png")

    def test_giant_png_header(self):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
        png += chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
        self.refuse(self.write("giant.png", png), "60000")

    def test_locked_pdf(self):
        self.refuse(KINDS / "locked.pdf", "password")

    def test_wrong_password(self):
        self.refuse(KINDS / "locked.pdf", "password", args=("--password", "open"))

    def test_missing_file(self):
        self.refuse(self.dir / "nobody.pdf", "no such file")

    def test_unreadable_file(self):
        path = self.write("secret.png", (KINDS / "note.png").read_bytes())
        path.chmod(0)
        if os.geteuid():
            self.refuse(path, "permission")
            return
        # root reads everything: be somebody else. The programs must be readable for them, so they are copied.
        programs = self.dir / "bin"
        programs.mkdir()
        for name in pathlib.Path(PAGEMILL).parent.glob("pagemill*"):
            shutil.copy(name, programs)
        shutil.copytree(SOURCE / "models", self.dir / "models")
        good = self.dir / "good.png"
        shutil.copy(KINDS / "note.png", good)
        self.dir.chmod(0o777)
        done = subprocess.run([programs / "pagemill", "parse", path, good, "-o", self.dir / "out"], capture_output=True,
                              user=65534, group=65534, extra_groups=[], cwd="/", timeout=120,
                              env={"PATH": os.environ["PATH"], "PAGEMILL_MODELS": str(self.dir / "models"), "HOME": "/nonexistent"})
        self.assertEqual(done.returncode, 1, done.stderr.decode())
        self.assertRegex(done.stderr.decode().lower(), "secret.png.*permission denied")
        self.assertTrue((self.dir / "out/good/good.md").exists(), "the good neighbour was not delivered")

    def test_page_outside(self):
        good = self.dir / "good.png"
        shutil.copy(KINDS / "note.png", good)
        done = self.expect(run("parse", KINDS / "note.pdf", "--pages", "7", "-o", self.dir / "out"), 1)
        self.assertIn("7", done.stderr.decode())

    def test_folder_without_documents(self):
        (self.dir / "in").mkdir()
        (self.dir / "in/readme.txt").write_text("nothing here")
        done = run("parse", self.dir / "in", "-o", self.dir / "out")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode().lower(), "no document")

    def test_missing_model(self):
        (self.dir / "models").mkdir()
        done = run("parse", KINDS / "note.png", "-o", self.dir / "out", "--models", self.dir / "models")
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode().lower(), "no model")

    def test_unknown_reader(self):
        done = run("parse", KINDS / "note.png", "-o", self.dir / "out", "--reader", "nosuch")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nosuch", done.stderr.decode())

    def test_output_directory_is_a_file(self):
        path = self.write("out", b"in the way")
        done = run("parse", KINDS / "note.png", "-o", path)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.decode().strip())

    def test_full_disk(self):
        full = self.dir / "full"
        full.mkdir()
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)], capture_output=True)
        if mount.returncode:
            self.skipTest("needs the right to mount a small file system")
        self.addCleanup(subprocess.run, ["umount", str(full)], check=False)
        (full / "filler").write_bytes(b"x" * 12288)
        done = run("parse", KINDS / "note.png", DATA / "twenty.pdf", "-o", full / "out")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode().lower(), "no space")

    def test_usage(self):
        for args in ((), ("--nosuch", "x"), (KINDS / "note.png", "--pages", "0"), (KINDS / "note.png", "--format", "docx")):
            with self.subTest(args=args):
                done = self.expect(run("parse", *args), 2)
                self.assertTrue(done.stderr.decode().strip())


class Leftovers(Case):
    """After any end of parse, kill -9 included, no process and no directory of its private fleet is left."""

    def start(self):
        self.marks = {"TMPDIR": str(self.dir / "tmp"), "XDG_RUNTIME_DIR": str(self.dir / "rt")}
        for d in ("tmp", "rt"):
            (self.dir / d).mkdir(mode=0o700)
        # Many copies, so that the fleet is busy when the end comes.
        for i in range(8):
            shutil.copy(DATA / "twenty.pdf", self.dir / f"doc-{i}.pdf")
        process = subprocess.Popen([PAGEMILL, "parse", *sorted(str(p) for p in self.dir.glob("doc-*.pdf")), "-o",
                                    str(self.dir / "out")], env=dict(os.environ, **self.marks), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        wait_until(lambda: any((self.dir / "out").rglob("*.md")) or process.poll() is not None, "the first document")
        self.assertIsNone(process.poll(), "parse ended before it could be disturbed")
        return process

    def descendants(self, pid):
        """pid and everything below it, at this moment."""
        below = {pid}
        grown = True
        while grown:
            grown = False
            for entry in pathlib.Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) not in below:
                    try:
                        parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    except (OSError, IndexError):
                        continue
                    if parent in below:
                        below.add(int(entry.name))
                        grown = True
        return below

    def check_gone(self, pids):
        def gone():
            alive = [p for p in pids if pathlib.Path(f"/proc/{p}/cmdline").exists()
                     and pathlib.Path(f"/proc/{p}/cmdline").read_bytes()]
            return not alive
        wait_until(gone, "the private fleet's processes to go")
        wait_until(lambda: not self.private_dirs(), f"private directories to go: {self.private_dirs()}")

    def private_dirs(self):
        """Directories of this parse's fleet: their names hold its process number."""
        roots = [self.dir / "tmp", self.dir / "rt", pathlib.Path("/dev/shm"), pathlib.Path("/tmp")]
        return [p for r in roots for p in r.glob(f"pagemill-*-{self.pid}-*")]

    def end_by(self, number, code):
        process = self.start()
        pids = self.descendants(process.pid) - {process.pid}
        self.assertTrue(len(pids) >= 4, pids)
        self.pid = process.pid
        self.assertTrue(self.private_dirs(), "no private directory found: this test would not see one left behind")
        os.kill(process.pid, number)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, code)
        self.check_gone(pids)

    def test_kill_9(self):
        self.end_by(signal.SIGKILL, -9)

    def test_interrupt(self):
        self.end_by(signal.SIGINT, 130)

    def test_terminate(self):
        self.end_by(signal.SIGTERM, 130)


if __name__ == "__main__":
    unittest.main(verbosity=2)
