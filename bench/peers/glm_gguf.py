#!/usr/bin/env python3
"""Makes the GGUF pair of a GLM-OCR checkpoint with llama.cpp's own converter, for glm_llama.py.

  glm_gguf.py LLAMA_CPP CHECKPOINT OUT      OUT/text-bf16.gguf, OUT/mmproj-bf16.gguf; nothing is made again that is there

The converter knows tokenizers by a checksum of what they make of one text. The synthetic checkpoint has a tokenizer of the
published size and the published way of cutting text, but with fewer merges: its checksum is unknown, its kind is GLM's.
"""
import pathlib
import sys


def convert(llama_cpp, checkpoint, out, is_mmproj):
    sys.path.insert(0, str(llama_cpp))
    sys.argv = ["convert_hf_to_gguf.py", str(checkpoint), "--outtype", "bf16", "--outfile", str(out)]
    if is_mmproj:
        sys.argv.append("--mmproj")
    import convert_hf_to_gguf
    from conversion import base
    known = base.TextModel.get_vocab_base_pre

    def kind(self, tokenizer):
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return "glm4"

    base.TextModel.get_vocab_base_pre = kind
    convert_hf_to_gguf.main()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    llama_cpp, checkpoint, out = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    for name, is_mmproj in (("text-bf16.gguf", False), ("mmproj-bf16.gguf", True)):
        if not (out / name).exists():
            part = out / ("part-" + name)
            convert(llama_cpp, checkpoint, part, is_mmproj)
            part.rename(out / name)


if __name__ == "__main__":
    main()
