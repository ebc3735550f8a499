#!/usr/bin/env python3
"""One case with llama.cpp's server: glm_llama.py BIN TEXT.gguf CASE THREADS (glm_peers.py runs it).

BIN is the folder of llama-server; mmproj-bf16.gguf lies beside TEXT.gguf (glm_gguf.py makes both). The server's own log says how
long the tower took.
"""
import base64
import concurrent.futures
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

import glm_cases


def ask(port, image, tokens):
    data = io.BytesIO()
    image.save(data, "PNG")
    url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
                                                       {"type": "text", "text": glm_cases.PROMPT}]}],
            "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)


def wait_for(port, server):
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.02)
    sys.exit("llama-server ended")


def main():
    binaries, text, case, threads = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    width, height, tokens, count = glm_cases.CASES[case]
    context = width * height // 784 + tokens + 64
    port = 20000 + os.getpid() % 20000
    log = tempfile.NamedTemporaryFile(prefix="llama-", suffix=".log")
    # The page has more tokens than the server's own cap for pictures.
    server = subprocess.Popen(
        [binaries / "llama-server", "-m", text, "--mmproj", text.parent / "mmproj-bf16.gguf", "--no-warmup", "-t", str(threads),
         "-tb", str(threads), "-c", str(context * count), "-np", str(count), "--port", str(port), "--image-max-tokens", "6144",
         "-ub", "512", "-b", "2048", "--jinja", "-lv", "4"], stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(port, server)
        pictures = [glm_cases.picture(width, height, seed) for seed in range(count)]
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda image: ask(port, image, tokens), pictures))
        total, peak = time.monotonic() - begin, glm_cases.peak_mb(server.pid)
    finally:
        server.terminate()
        server.wait()
    written = [a["usage"]["completion_tokens"] for a in answers]
    assert written == [tokens] * count, written
    times, said = answers[0]["timings"], pathlib.Path(log.name).read_text(errors="replace")
    encoded = [float(ms) / 1e3 for ms in re.findall(r"(?:slice|image|batch) encoded in (\d+(?:\.\d+)?) ms", said)]
    vision = sum(encoded) if encoded else None
    alone = count == 1
    glm_cases.tell(peer="llama.cpp " + text.stem.split("-")[-1], case=case, vision_s=vision,
                   prefill_s=times["prompt_ms"] / 1e3 - vision if alone and vision else None,
                   decode_tokens_per_s=times["predicted_per_second"] if alone and tokens > 1 else None, total_s=total,
                   first_s=glm_cases.since_start() - times["predicted_ms"] / 1e3 if alone and tokens == 1 else None, peak_mb=peak)


if __name__ == "__main__":
    main()
