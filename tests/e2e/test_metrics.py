"""The metrics page of a running fleet: well-formed whenever it is asked for, adds up with jobs and pages, forgets who has
left, and is not disturbed by those who ask too often."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from fleet import BUILD, DATA, KINDS, SLOW, Case, Service, fleet_processes, wait_until

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(\{{{LABEL}(?:,{LABEL})*\}})? ([0-9]+(?:\.[0-9]+)?)")


def read_page(text):
    """The page as {series: value}; fails at whatever is not the format 0.0.4."""
    series, families, family, kind = {}, set(), None, None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family, kind = line.split(" ")[2], None
            assert family not in families, f"{family} twice"
            families.add(family)
        elif line.startswith("# TYPE "):
            name, kind = line.split(" ")[2:]
            assert name == family and kind in ("counter", "gauge", "histogram"), line
        else:
            found = SAMPLE.fullmatch(line)
            assert found and kind, line
            name = found[1]
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert name in {family + s for s in suffixes}, line
            key = name + (found[2] or "")
            assert key not in series, line
            series[key] = float(found[3])
    for key, value in series.items():
        if '_bucket{' in key and 'le="+Inf"' in key:
            count = key.replace("_bucket", "_count").replace(',le="+Inf"', "").replace('{le="+Inf"}', "")
            assert series[count] == value, key
    return series


def get(address, path):
    """(status, text)"""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20 * SLOW) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def address_in(log):
    found = re.findall(r"metrics address=(\S+)", log.read_text())
    return found[-1] if found else None


class Metrics(Case):
    def fleet(self, **kw):
        fleet = Service(self, extra=("--metrics", "0"), **kw)
        wait_until(lambda: address_in(self.dir / "up.log"), "the address in the log")
        self.address = address_in(self.dir / "up.log")
        return fleet

    def scrape(self):
        status, text = get(self.address, "/metrics")
        self.assertEqual(status, 200)
        return read_page(text)

    def job(self, fleet):
        jobs = json.loads(self.expect(fleet.cli("jobs", "--json"), 0).stdout)
        self.assertEqual(len(jobs), 1)
        return jobs[0]

    def test_adds_up(self):
        fleet = self.fleet(workers=2)
        self.expect(fleet.cli("submit", DATA / "twenty.pdf", "--pages", "1-4"), 0)
        last, pages = {}, []
        while last.get('pagemill_jobs{state="done"}') != 1:
            now = self.scrape()
            for key, value in now.items():  # what is called total only grows
                if "_total" in key or "_bucket" in key or "_count" in key:
                    self.assertGreaterEqual(value, last.get(key, 0), key)
            pages.append(now["pagemill_pages_total"])
            last = now
            time.sleep(0.05)
        self.assertGreater(len(set(pages)), 1, "nothing was seen while it ran")
        job = self.job(fleet)
        regions = job["regions"]
        done = {"open": 1, "page": 4, "region": regions, "assemble-page": 4, "assemble-document": 1}
        for kind, count in done.items():
            reader = "fast" if kind == "region" else ""
            self.assertEqual(last[f'pagemill_tasks_done_total{{kind="{kind}",reader="{reader}"}}'], count, kind)
            self.assertEqual(last[f'pagemill_task_run_seconds_count{{kind="{kind}"}}'], count, kind)
            self.assertEqual(last[f'pagemill_task_wait_seconds_count{{kind="{kind}"}}'], count, kind)
            run = last[f'pagemill_task_run_seconds_sum{{kind="{kind}"}}']
            phases = sum(v for k, v in last.items() if k.startswith(f'pagemill_phase_seconds_total{{kind="{kind}",'))
            self.assertGreater(phases, 0, kind)
            self.assertLessEqual(phases, run, kind)
        self.assertEqual(last["pagemill_pages_total"], 4)
        self.assertEqual(last["pagemill_regions_total"], regions)
        self.assertEqual(sum(v for k, v in last.items() if k.startswith("pagemill_peer_done_total")), sum(done.values()))
        self.assertEqual(sum(v for k, v in last.items() if k.startswith("pagemill_tasks_queued")), 0)
        self.assertEqual(last["pagemill_journal_sync_seconds_count"],
                         last['pagemill_events_total{event="journal_commits"}'])
        for role, count in {"worker": 2, "layoutd": 1, "collector": 1}.items():
            here = sum(v for k, v in last.items() if k.startswith(f'pagemill_peers{{role="{role}"'))
            self.assertEqual(here, count, role)
        for key, value in last.items():
            if key.startswith("pagemill_peer_memory_bytes"):
                self.assertGreater(value, 1 << 20, key)
        self.assertGreater(last["process_resident_memory_bytes"], 1 << 20)
        self.assertGreater(last["pagemill_state_bytes"], 4096)
        self.assertEqual(get(self.address, "/healthz"), (200, "ok\n"))
        self.assertEqual(get(self.address, "/jobs")[0], 404)

    def test_who_has_left_vanishes(self):
        fleet = self.fleet()
        models = re.search(r"--models (\S+)", next(line for line in fleet_processes(str(fleet.run_dir)).values()
                                                    if "pagemill-worker" in line))[1]
        extra = subprocess.Popen([str(BUILD / "pagemill-worker"), "--endpoint", f"ipc://{fleet.run_dir}/work.sock",
                                  "--name", 'extra "1"', "--models", models], stderr=subprocess.DEVNULL)
        self.addCleanup(extra.kill)
        ours = 'name="extra__1_"'  # a name is one plain word wherever it stands
        wait_until(lambda: any(ours in key for key in self.scrape()), "the worker to be on the page")
        self.assertGreater(sum(ours in key for key in self.scrape()), 5)
        extra.kill()
        extra.wait()
        wait_until(lambda: not any(ours in key for key in self.scrape()), "the dead worker to vanish")
        here = sum(v for k, v in self.scrape().items() if k.startswith('pagemill_peers{role="worker"'))
        self.assertEqual(here, 1)

    def test_a_flood_of_requests(self):
        fleet = self.fleet()
        host, port = self.address.split(":")
        self.expect(fleet.cli("submit", DATA / "twenty.pdf", "--pages", "1-3"), 0)
        silent = [socket.create_connection((host, int(port))) for _ in range(100)]  # more than are served at once
        for s in silent:
            self.addCleanup(s.close)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            for _ in range(20):
                s = socket.create_connection((host, int(port)))
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                s.close()
        self.expect(fleet.cli("watch", self.job(fleet)["job"]), 0)
        self.assertEqual(self.job(fleet)["state"], "done")
        for s in silent:
            s.close()
        page = {}

        def is_answered():
            try:
                page.update(self.scrape())
                return True
            except OSError:
                return False
        wait_until(is_answered, "the page behind the flood")
        # Pages are made four times a second at most, whoever asks.
        self.assertLessEqual(page["pagemill_scrapes_total"], 4 * page["pagemill_up_seconds"] + 2)

    def test_health_of_a_broker_alone(self):
        state, run_dir, log = self.dir / "state", self.dir / "run", self.dir / "broker.log"
        with open(log, "wb") as out:
            broker = subprocess.Popen([str(BUILD / "pagemill-broker"), "--state", str(state), "--run", str(run_dir),
                                       "--metrics", f"{self.dir}/m.sock"], stderr=out)
        self.addCleanup(broker.wait)
        self.addCleanup(broker.kill)
        wait_until(lambda: address_in(log), "the broker")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f"{self.dir}/m.sock")
            s.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            answer = b""
            while part := s.recv(65536):
                answer += part
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nno layoutd is connected\n"), answer)
        broker.send_signal(signal.SIGTERM)
        self.assertEqual(broker.wait(timeout=30 * SLOW), 0)
        self.assertFalse((self.dir / "m.sock").exists())

    def test_wrong_address_is_refused(self):
        done = subprocess.run([str(BUILD / "pagemill-broker"), "--state", str(self.dir / "s"), "--run",
                               str(self.dir / "r"), "--metrics", "example.org:80"], capture_output=True,
                              timeout=60 * SLOW)
        self.assertEqual(done.returncode, 78)
        self.assertIn(b"no address for metrics", done.stderr)

    def test_a_taken_port_keeps_no_fleet_away(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            fleet = Service(self, extra=("--metrics", str(port)))
            wait_until(lambda: "no metrics are served" in (self.dir / "up.log").read_text(), "the refusal in the log")
        wait_until(lambda: address_in(self.dir / "up.log"), "the port to be taken when it is free")
        self.assertEqual(get(f"127.0.0.1:{port}", "/healthz")[0], 200)
        fleet.stop()

    def test_times_outlive_the_broker_and_stay_out_of_the_files(self):
        fleet = self.fleet()
        for out in "ab":
            self.expect(fleet.cli("submit", KINDS / "note.pdf", "--again", "--wait", "-o", self.dir / out), 0)
        files = sorted(p.relative_to(self.dir / "a") for p in (self.dir / "a").rglob("*") if p.is_file())
        self.assertTrue(files)
        for file in files:
            self.assertEqual((self.dir / "a" / file).read_bytes(), (self.dir / "b" / file).read_bytes(), file)
        shutil.rmtree(self.dir / "b")
        result = json.loads(self.expect(fleet.cli("result", "1", "--json"), 0).stdout)
        times = [result[key] for key in ("accepted", "started", "opened", "first_page", "finished")]
        self.assertEqual(times, sorted(times))
        page, = result["page_times"]
        steps = [result["opened"], page["laid_out"], page["read"], page["done"], result["finished"]]
        self.assertEqual(steps, sorted(steps))
        job = json.loads(self.expect(fleet.cli("status", "1", "--json"), 0).stdout)
        self.assertEqual({t["tasks"] for t in result["times"] if t["kind"] == "region"}, {job["regions"]})
        self.assertLessEqual({"wait", "run", "recognise"}, {t["name"] for t in result["times"]})
        broker = next(pid for pid, line in fleet_processes(str(fleet.run_dir)).items() if "pagemill-broker" in line)
        before = json.loads(self.expect(fleet.cli("status", "1", "--json"), 0).stdout)
        os.kill(broker, signal.SIGKILL)
        wait_until(lambda: fleet.cli("status", "1", "--json").returncode == 0, "the next broker")
        after = json.loads(self.expect(fleet.cli("status", "1", "--json"), 0).stdout)
        for key in ("created", "started", "opened", "first_page", "finished"):
            self.assertTrue(before[key], key)
            self.assertEqual(before[key], after[key], key)
        self.assertEqual([s["kind"] for s in before["stages"]],
                         ["open", "page", "region", "assemble-page", "assemble-document"])
        self.assertEqual(before["stages"], after["stages"])


if __name__ == "__main__":
    unittest.main()
