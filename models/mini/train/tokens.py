"""The reader's vocabulary and the frame around a picture.

Ids 0..255 are bytes of UTF-8, then come the special tokens in the order of the GLM-OCR checkpoint. The frame is the
chat template with one picture and the prompt "Text Recognition:".
"""

SPECIAL = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>",
    "<|video|>", "<think>", "</think>", "/nothink",
)
ID = {text: 256 + i for i, text in enumerate(SPECIAL)}
PROMPT = "Text Recognition:"
BEFORE = [ID["[gMASK]"], ID["<sop>"], ID["<|user|>"], ord("\n"), ID["<|begin_of_image|>"]]
AFTER = [ID["<|end_of_image|>"], *PROMPT.encode(), ID["<|assistant|>"], ord("\n")]
END, PAD = ID["<|user|>"], ID["<|endoftext|>"]
BLANK = 256  # of the column loss, which knows bytes only


def encode(text):
    """What the reader shall write: the bytes and the end."""
    return [*text.encode(), END]


def decode(ids):
    return bytes(i for i in ids if i < 256).decode(errors="replace")


TEMPLATE = """[gMASK]<sop>
{%- for message in messages -%}
{%- if message.role == 'user' -%}<|user|>
{% if message.content is string -%}{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}<|begin_of_image|><|image|><|end_of_image|>
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- elif message.role == 'assistant' -%}<|assistant|>
{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{% endif -%}"""


def byte_characters():
    """The printable stand-in of every byte in byte-level BPE files: itself, or the next character from U+0100 on."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    table, following = {}, 256
    for byte in range(256):
        if byte in own:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(following)
            following += 1
    return table


def tokenizer_json():
    """tokenizer.json: byte-level BPE without a single merge."""
    split = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": ID[text], "content": text, **plain,
                          "special": text not in ("<think>", "</think>", "/nothink")} for text in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
            {**byte_level, "add_prefix_space": False, "use_regex": False}]},
        "post_processor": {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {character: byte for byte, character in byte_characters().items()}, "merges": []},
    }
