"""`pagemill model`: adding, listing, showing, checking and removing models; who finds them afterwards."""
import json
import subprocess
import unittest

import tiny_formats
import tiny_model
from fleet import KINDS, SOURCE, Case, out_of, run


class Model(Case):
    def setUp(self):
        super().setUp()
        self.models = self.dir / "models"
        self.env = {"PAGEMILL_MODELS": str(self.models), "XDG_DATA_HOME": str(self.dir / "data")}
        self.source = tiny_model.write(self.dir / "Tiny Model")

    def model(self, *args, code=0, **kw):
        return self.expect(run("model", *args, env=self.env, **kw), code)

    def refused(self, *args, says, code=1, **kw):
        done = self.model(*args, code=code, **kw)
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, done.stderr.decode(), out_of(done))
        self.assertEqual(list(self.models.glob(".*")), [], "something was left behind")

    def names(self):
        """Of the models that were added."""
        listed = json.loads(self.model("list", "--json").stdout)
        self.assertIn("fast", [m["name"] for m in listed])
        return [m["name"] for m in listed if m["folder"].startswith(str(self.dir))]

    def facts(self, name):
        return json.loads(self.model("show", name, "--json").stdout)

    def test_life_of_a_model(self):
        done = self.model("add", self.source)
        self.assertIn("tiny-model: added", done.stdout.decode())
        self.assertEqual(self.names(), ["tiny-model"])
        facts = self.facts("tiny-model")
        self.assertEqual((facts["family"], facts["region"], facts["precision"]), ("glm_ocr", "block", "bf16"))
        self.assertEqual(facts["sizes"]["text"]["hidden"], tiny_model.HIDDEN)
        self.assertEqual(facts["prompts"]["table"], "Table Recognition:")
        self.assertEqual(facts["source"]["format"], "safetensors")
        count = 0
        for shape in tiny_model.tensors().values():
            values = 1
            for side in shape:
                values *= side
            count += values
        self.assertEqual(facts["parameters"], count)
        shown = self.model("show", "tiny-model").stdout.decode()
        for word in ("glm_ocr", "bf16", "safetensors", "Formula Recognition:"):
            self.assertIn(word, shown)
        self.assertIn("ok", self.model("verify", "tiny-model").stdout.decode())
        self.model("remove", "tiny-model")
        self.assertEqual(self.names(), [])
        self.assertEqual(list(self.models.iterdir()), [])

    def test_complete_by_itself(self):
        self.model("add", self.source / "model.safetensors", "--name", "a", "--precision", "f32")
        subprocess.run(["rm", "-rf", str(self.source)], check=True)
        self.model("verify", "a")
        self.assertEqual(self.facts("a")["precision"], "f32")

    def test_integers(self):
        """int8 and int4: smaller, named as such, whole, and they read."""
        sizes = []
        for word in ("bf16", "int8", "int4"):
            self.model("add", self.source, "--name", word, "--precision", word)
            facts = self.facts(word)
            self.assertEqual(facts["precision"], word)
            sizes.append(facts["bytes"])
            self.assertIn("ok", self.model("verify", word).stdout.decode())
            self.assertRegex(self.model("list").stdout.decode(), rf"(?m)^{word} .* {word} ")
            self.assertTrue(self.text_of(word))
        self.assertEqual(sizes, sorted(sizes, reverse=True))

    def text_of(self, name):
        run("parse", KINDS / "note.png", "-o", self.dir / name, "--reader", name, "--max-tokens", "12", env=self.env)
        return (self.dir / name / "note/note.md").read_text()  # cut at the limit: it knows no end

    def reads_as(self, source, plain, kind, stored):
        """Another format through a life, beside the same values as a plain checkpoint."""
        for name, path in (("other", source), ("plain", plain)):
            self.model("add", path, "--name", name, "--precision", "f32")
        other, same = self.facts("other"), self.facts("plain")
        self.assertEqual((other["source"]["format"], other["source"]["stored"]), (kind, stored))
        self.assertEqual((other["parameters"], other["sizes"]), (same["parameters"], same["sizes"]))
        self.assertEqual(self.names(), ["other", "plain"])
        self.assertIn("ok", self.model("verify", "other").stdout.decode())
        self.assertEqual(self.text_of("other"), self.text_of("plain"))
        self.model("remove", "other")
        self.assertEqual(self.names(), ["plain"])

    def test_gguf_pair(self):
        pair = tiny_formats.write_gguf(self.dir / "gguf", self.dir / "same")
        self.reads_as(pair / "tiny-Q8_0.gguf", self.dir / "same", "gguf", "F16")
        self.model("add", pair, "--name", "folder")
        projector, model = pair / "mmproj-tiny.gguf", pair / "tiny-Q8_0.gguf"
        self.refused("add", projector, says=["mmproj-tiny", "vision part"])
        (pair / "mmproj-other.gguf").write_bytes(projector.read_bytes())
        self.refused("add", model, says=["mmproj-other.gguf, mmproj-tiny.gguf", "leave the one"])
        (pair / "mmproj-other.gguf").unlink()
        whole = model.read_bytes()
        model.write_bytes(whole[:-1000])
        self.refused("add", pair, says=["tiny-Q8_0.gguf", "cut short", "fetch it again"])
        model.write_bytes(whole)
        projector.unlink()
        self.refused("add", pair, says=["mmproj", "one folder"])
        model.write_bytes(whole.replace(b"glm4", b"gpt4", 1))
        self.refused("add", pair, says=["gpt4", "only GLM-OCR"])

    def test_mlx_folder(self):
        folder = tiny_formats.write_mlx(self.dir / "mlx", self.dir / "same")
        self.reads_as(folder, self.dir / "same", "mlx", "F32")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        self.refused("add", folder, says=["model.safetensors", "cut short", "fetch it again"])

    def test_name_taken(self):
        self.model("add", self.source, "--name", "a")
        self.refused("add", self.source, "--name", "a", says=["\"a\"", "--replace"])
        self.refused("add", self.source, "--name", "fast", says="taken")
        self.refused("add", self.source, "--name", "fast", "--replace", says="taken")
        self.refused("add", self.source, "--name", "../a", says="name")
        before = self.facts("a")
        self.model("add", self.source, "--name", "a", "--precision", "f32", "--replace")
        after = self.facts("a")
        self.assertEqual((before["precision"], after["precision"]), ("bf16", "f32"))
        self.assertEqual(self.names(), ["a"])
        self.assertEqual([p.name for p in self.models.iterdir()], ["a"])

    def test_replacing_fails_the_old_one_stays(self):
        self.model("add", self.source, "--name", "a")
        bad = tiny_model.write(self.dir / "bad", rename={"lm_head.weight": "score.weight"})
        self.refused("add", bad, "--name", "a", "--replace", says="score.weight")
        self.model("verify", "a")

    def test_refused_sources(self):
        self.refused("add", self.dir / "nobody", says="nobody")
        self.refused("add", KINDS, says=str(KINDS))
        self.refused("add", self.source, "--precision", "int3", says=["int3", "bf16"], code=2)
        lora = tiny_model.write(self.dir / "lora", rename={
            "lm_head.weight": "base_model.model.lm_head.lora_A.weight"})
        self.refused("add", lora, says=["lora_A", "merge"])
        adapter = self.dir / "adapter"
        adapter.mkdir()
        (adapter / "adapter_model.safetensors").write_bytes((self.source / "model.safetensors").read_bytes())
        (adapter / "adapter_config.json").write_text("{}")
        self.refused("add", adapter, says=["adapter", "merge"])
        self.refused("add", adapter / "adapter_model.safetensors", says=["adapter_model", "merge"])
        empty = self.dir / "empty"
        empty.mkdir()
        self.refused("add", empty, says="no model here")
        self.refused("add", KINDS / "note.png", says=["note.png", "not a weight file"])
        wordless = tiny_model.write(self.dir / "wordless")
        (wordless / "tokenizer.json").unlink()
        self.refused("add", wordless, says=["wordless", "tokenizer.json"])
        other = tiny_model.write(self.dir / "other", config=dict(tiny_model.CONFIG, model_type="qwen3_vl"))
        self.refused("add", other, says=[str(other), "config.json", "qwen3_vl"])
        cut = tiny_model.write(self.dir / "cut")
        weights = cut / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.refused("add", cut, says="model.safetensors")
        speechless = tiny_model.write(self.dir / "speechless")
        (speechless / "chat_template.jinja").unlink()
        self.refused("add", speechless, says="chat template")
        self.assertEqual(self.names(), [])

    def test_damage_is_found(self):
        self.model("add", self.source, "--name", "a")
        weights = self.models / "a/model.pmw"
        raw = bytearray(weights.read_bytes())
        raw[len(raw) // 2] ^= 4
        weights.write_bytes(raw)
        self.refused("verify", "a", says=["model.pmw", "damaged"])
        (self.dir / "a").mkdir()  # a folder here does not hide the model
        self.refused("verify", "a", says=["model.pmw", "damaged"], cwd=self.dir)
        self.refused("verify", says="model.pmw")
        weights.write_bytes(raw[:-8])
        self.refused("show", "a", says="model.pmw")

    def test_verify_knows_what_a_model_needs(self):
        self.model("add", self.source, "--name", "a")
        (self.models / "a/model.pmw").write_bytes((SOURCE / "models/ppocr/cls.pmw").read_bytes())
        self.refused("verify", "a", says="model.pmw")

    def test_remove(self):
        self.refused("remove", "fast", says="came with the program")
        self.refused("remove", "nobody", says="nobody")
        self.assertTrue((SOURCE / "models/ppocr/det.pmw").exists())

    def test_remove_refuses_what_is_in_use(self):
        self.model("add", self.source, "--name", "a")
        code = ("import mmap, sys, time\nf = open(sys.argv[1], 'rb')\nm = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
                "print('ready', flush=True)\ntime.sleep(600)")
        reader = subprocess.Popen(["python3", "-c", code, str(self.models / "a/model.pmw")], stdout=subprocess.PIPE)
        try:
            reader.stdout.readline()
            self.refused("remove", "a", says=[str(reader.pid), "reading"])
        finally:
            reader.kill()
            reader.wait()
            reader.stdout.close()
        self.model("remove", "a")

    def test_killed_in_the_middle(self):
        self.model("add", self.source, "--name", "b")
        left = self.models / ".a.4194305.tmp"  # above the largest process number
        left.mkdir()
        (left / "pagemill.json").write_text("{")
        self.assertEqual(self.names(), ["b"])
        self.model("add", self.source, "--name", "a")
        self.assertFalse(left.exists())

    def test_own_folder_of_the_user(self):
        env = {"PAGEMILL_MODELS": "", "XDG_DATA_HOME": str(self.dir / "data")}
        self.expect(run("model", "add", self.source, "--name", "a", env=env), 0)
        self.assertTrue((self.dir / "data/pagemill/models/a/pagemill.json").exists())
        listed = self.expect(run("model", "list", env=env), 0).stdout.decode()
        self.assertRegex(listed, r"(?s)a +glm_ocr.*fast +ppocr")

    def test_search_path(self):
        other = self.dir / "more"
        self.model("add", self.source, "--name", "a")
        self.model("add", self.source, "--name", "b", "--models", other)
        both = f"{other}:{self.models}"
        listed = json.loads(self.model("list", "--json", "--models", both).stdout)
        self.assertEqual([m["name"] for m in listed], ["b", "a"])
        # layout detection finds its networks in one folder, the worker its reader in another
        done = self.expect(run("parse", KINDS / "note.png", "-o", self.dir / "out", env=self.env), 0)
        self.assertTrue((self.dir / "out/note/note.md").exists(), out_of(done))
        done = run("parse", KINDS / "note.png", "-o", self.dir / "tiny", "--reader", "a", "--max-tokens", "3", env=self.env)
        self.assertIn("token limit", (self.dir / "tiny/note/note.md").read_text(), out_of(done))  # it knows no end

    def test_bench(self):
        self.model("add", self.source, "--name", "a")
        figures = json.loads(self.model("bench", "a", "--crop", "56x28", "--threads", "1", "--json").stdout)
        self.assertEqual((figures["name"], figures["threads"], figures["precision"]), ("a", 1, "bf16"))
        self.assertEqual(figures["image_tokens"], 8)  # made larger: the smallest picture that the model takes
        for word in ("vision_s", "prefill_tokens_per_s", "decode_tokens_per_s", "decode_batch_tokens_per_s", "memory_gb_per_s"):
            self.assertGreater(figures[word], 0, word)
        self.assertRegex(self.model("bench", "a", "--crop", "56x28").stdout.decode(), r"(?s)vision.*prefill.*decode.*memory")
        self.refused("bench", "fast", says="ppocr")
        self.refused("bench", "a", "--crop", "wide", says="--crop", code=2)
        self.refused("bench", "a", "--crop", "5600x2800", says="positions")

    def test_usage(self):
        for words in (["add"], ["pack", "x"], ["show"], ["remove"], ["bench"], ["list", "x"], ["ad", "x"]):
            self.expect(run("model", *words, env=self.env), 2)
        self.assertIn("\"add\"", run("model", "ad", env=self.env).stderr.decode())
        self.assertIn("merged", run("model", "--help", env=self.env).stdout.decode())


if __name__ == "__main__":
    unittest.main()
