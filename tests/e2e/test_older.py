"""Peers of the protocol before this one: each kind of process beside newer ones, and all of them older, do whole jobs."""
import os
import subprocess
import unittest

import older
from fleet import BUILD, DATA, SOURCE, Case, SLOW, run, wait_until

DOCUMENT = DATA / "twenty.pdf"
MODELS = os.pathsep.join(str(p) for p in (BUILD / "models", SOURCE / "models") if p.is_dir())
DETECTOR = next(p for p in (BUILD / "models" / "ppocr", *SOURCE.glob("models/*"))
                if (p / "pagemill.json").exists() and '"ppocr"' in (p / "pagemill.json").read_text())


class Older(Case):
    def setUp(self):
        super().setUp()
        self.state, self.rundir, self.old = self.dir / "state", self.dir / "run", self.dir / "old"
        for folder in (self.state, self.rundir, self.old):
            folder.mkdir(mode=0o700)
        self.start("broker", "--state", self.state, "--run", self.rundir)
        wait_until(lambda: "serving" in self.log_of("broker"), "the broker")
        self.proxies = {name: older.Proxy(f"ipc://{self.old}/{name}.sock", f"ipc://{self.rundir}/{name}.sock")
                        for name in ("work", "client")}
        for proxy in self.proxies.values():
            self.addCleanup(proxy.close)

    def log_of(self, name):
        return (self.dir / f"{name}.log").read_text()

    def start(self, name, *args):
        with open(self.dir / f"{name}.log", "ab") as log:
            process = subprocess.Popen([str(BUILD / f"pagemill-{name}"), *map(str, args)], stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS="1"))
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.wait()))
        return process

    def services(self, is_old):
        """One of each; is_old says which of them are of protocol 1."""
        arguments = {"layoutd": ("--model", DETECTOR, "--models", MODELS), "worker": ("--models", MODELS), "collector": ()}
        joined = {name: self.log_of("broker").count(f"{name} joined") for name in arguments}
        started = [self.start(name, "--endpoint", f"ipc://{self.old if name in is_old else self.rundir}/work.sock", *more)
                   for name, more in arguments.items()]
        wait_until(lambda: all(self.log_of("broker").count(f"{name} joined") > joined[name] for name in arguments),
                   "the services")
        return started

    def read(self, name, socket_dir, *options):
        out = self.dir / name
        self.expect(run("submit", DOCUMENT, "--pages", "1", "--again", "--wait", "-o", out, "--socket",
                        socket_dir / "client.sock", *options), 0)
        return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    def check(self, *needed):
        for name, proxy in self.proxies.items():
            self.assertEqual(proxy.violations, [], name)
        seen = set().union(*(proxy.seen for proxy in self.proxies.values()))
        self.assertTrue(set(needed) <= seen, seen)

    def stop(self, processes):
        for process in processes:
            process.terminate()
            self.assertEqual(process.wait(timeout=60 * SLOW), 0)

    def test_each_kind(self):
        now = self.services(())
        expected = self.read("new", self.rundir)
        self.assertGreater(len(expected), 1)
        # An older client.
        self.assertEqual(self.read("client", self.old), expected)
        self.check("HELLO", "WELCOME", "SUBMIT", "ACCEPTED", "WATCH", "EVENT", "FETCH", "MANIFEST")
        self.stop(now)
        # Older services; what it says to a broker of today must be enough for it, too.
        then = self.services(("layoutd", "worker", "collector"))
        self.assertEqual(self.read("services", self.rundir), expected)
        self.check("LEASE", "RESULT", "RESULT_ACK", "CREDIT")
        # Everything but the broker is older.
        self.assertEqual(self.read("all", self.old), expected)
        self.stop(then)
        self.check("GOODBYE")

    def test_goldens_are_what_the_proxy_lets_through(self):
        """The oldest form of each message passes the proxy unchanged: it is a peer of protocol 1 and nothing less."""
        proxy = self.proxies["work"]
        count = 0
        for path in sorted(older.GOLDENS.glob("[A-Z]*-[0-9].bin")):
            kind, record = older.golden(path)
            head = bytes([80, 77, 1, kind]) + bytes(12)
            _, packed = proxy.as_protocol_1([head, older.pack(record)], False)[:2]
            again = older.unpack(packed)[0]
            again["v"] = record["v"]
            self.assertEqual(again, record, path.name)
            count += 1
        self.assertGreater(count, 5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
