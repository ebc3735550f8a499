#!/usr/bin/env python3
"""One case with llama.cpp's server: glm_llama.py BIN TEXT.gguf CASE THREADS (glm_peers.py runs it).

BIN is the folder of llama-server; mmproj-bf16.gguf lies beside TEXT.gguf (glm_gguf.py makes both). The server's own log says how
long the tower took.
"""
import base64
import concurrent.futures
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


def ask(port, url, tokens):
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


def vision_seconds(log):
    """The server's lines begin with its clock, MINUTES.SECONDS.MS.US: a picture is encoded until its rows go to the text model."""
    total, begin = 0.0, None
    for line in log.splitlines():
        clock = re.match(r"(\d+)\.(\d+)\.(\d+)\.(\d+) ", line)
        if not clock:
            continue
        minutes, seconds, ms, us = map(int, clock.groups())
        now = minutes * 60 + seconds + ms / 1e3 + us / 1e6
        if "encoding mtmd batch" in line:
            begin = now
        elif "decoding image batch" in line and begin is not None:
            total, begin = total + now - begin, None
    return total or None


def main():
    binaries, text, case, threads = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    width, height, tokens, count = glm_cases.CASES[case]
    places = width * height // 784
    port = 20000 + os.getpid() % 20000
    log = tempfile.NamedTemporaryFile(prefix="llama-", suffix=".log")
    # A whole page has more tokens than the server's own cap for pictures.
    server = subprocess.Popen(
        [binaries / "llama-server", "-m", text, "--mmproj", text.parent / "mmproj-bf16.gguf", "--no-warmup", "-t", str(threads),
         "-tb", str(threads), "-c", str((places + tokens + 64) * count), "-np", str(count), "--port", str(port),
         "--image-max-tokens", "6144", "-ub", "512", "-b", "2048", "--jinja", "--cache-ram", "0", "-lv", "4"],
        stdout=log, stderr=subprocess.STDOUT)
    try:
        urls = ["data:image/png;base64," + base64.b64encode(glm_cases.png(width, height, seed)).decode() for seed in range(count)]
        wait_for(port, server)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda url: ask(port, url, tokens), urls))
        total, first, peak = time.monotonic() - begin, glm_cases.since_start(), glm_cases.peak_mb(server.pid)
    finally:
        server.terminate()
        server.wait()
    for usage in (a["usage"] for a in answers):
        assert usage["completion_tokens"] == tokens and places < usage["prompt_tokens"] < places + 32, usage
    alone, times = count == 1, answers[0]["timings"]
    vision = vision_seconds(pathlib.Path(log.name).read_text(errors="replace"))
    glm_cases.tell(peer="llama.cpp " + text.stem.split("-")[-1], case=case, vision_s=vision,
                   prefill_s=times["prompt_ms"] / 1e3 - vision if alone and vision else None,
                   decode_tokens_per_s=(tokens - 1) * 1e3 / times["predicted_ms"] if alone and tokens > 1 else None, total_s=total,
                   first_s=first - times["predicted_ms"] / 1e3 if alone else None, peak_mb=peak)


if __name__ == "__main__":
    main()
