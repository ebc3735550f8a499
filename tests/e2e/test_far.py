"""Workers on another host: crops travel in the leases, over tcp with CURVE, and what comes out is the same to the byte.

The other host is a network namespace of its own where that is permitted, else the loopback with another host id.
Broker, layoutd and collector run without a worker of their own, so that every region goes to the far ones."""
import ctypes
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import threading
import unittest

from fleet import BUILD, DATA, PAGEMILL, SOURCE, Case, SLOW, out_of, run, wait_until

DOCUMENT = DATA / "twenty.pdf"
PAGES = "1-3"
MODELS = os.pathsep.join(str(p) for p in (BUILD / "models", SOURCE / "models") if p.is_dir())
DETECTOR = next(p for p in ((BUILD / "models" / "ppocr"), (SOURCE / "models" / "ppocr"), *SOURCE.glob("models/*"))
                if '"ppocr"' in ((p / "pagemill.json").read_text() if (p / "pagemill.json").exists() else ""))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def key_pair():
    zmq = ctypes.CDLL("libzmq.so.5")
    public, secret = ctypes.create_string_buffer(41), ctypes.create_string_buffer(41)
    assert zmq.zmq_curve_keypair(public, secret) == 0
    return public.value.decode(), secret.value.decode()


class Proxy:
    """A link that can be cut (connections end), and blocked (bytes go nowhere)."""

    def __init__(self, host, port, target):
        self.target, self.is_blocked, self.is_closed, self.pairs = target, False, False, []
        self.listener = socket.create_server((host, port))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while not self.is_closed:
            others = {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}
            ready, _, _ = select.select([self.listener, *([] if self.is_blocked else others)], [], [], 0.05)
            for s in ready:
                try:
                    if s is self.listener:
                        near, _ = s.accept()
                        self.pairs.append((near, socket.create_connection(self.target)))
                    else:
                        data = s.recv(65536)
                        if data:
                            others[s].sendall(data)
                        else:
                            self.drop(s)
                except OSError:
                    if s is not self.listener:
                        self.drop(s)

    def drop(self, s):
        for pair in [p for p in self.pairs if s in p]:
            self.pairs.remove(pair)
            for end in pair:
                end.close()

    def cut(self):
        for near, far in list(self.pairs):
            for end in (near, far):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.is_closed = True
        self.thread.join()
        for near, far in self.pairs:
            near.close()
            far.close()
        self.listener.close()


class Far(Case):
    def setUp(self):
        super().setUp()
        self.state, self.rundir = self.dir / "state", self.dir / "run"
        for folder in (self.state, self.rundir, self.state / "keys"):
            folder.mkdir(mode=0o700)
        self.public, secret = key_pair()
        self.key = self.dir / "far.key"
        self.key.write_text(f"name far\npublic {self.public}\nsecret {secret}\n")
        self.key.chmod(0o600)
        allowed = self.state / "keys" / "allowed"
        allowed.write_text(f"far work {self.public}\n")
        allowed.chmod(0o600)
        self.address, self.namespace = "127.0.0.1", []
        self.port = free_port()
        self.near = []

    def log_of(self, name):
        return (self.dir / f"{name}.log").read_text()

    def start(self, name, *args, env=None, prefix=()):
        with open(self.dir / f"{name}.log", "ab") as log:
            process = subprocess.Popen([*prefix, *map(str, args)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       env=dict(os.environ, OMP_NUM_THREADS="1", **(env or {})))
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.wait()))
        return process

    def broker(self, stall=5):
        broker = self.start("broker", BUILD / "pagemill-broker", "--state", self.state, "--run", self.rundir,
                            "--listen", f"tcp://{self.address}:{self.port}", "--stall", stall)
        endpoint = f"ipc://{self.rundir}/work.sock"
        self.start("layoutd", BUILD / "pagemill-layoutd", "--endpoint", endpoint, "--model", DETECTOR, "--models", MODELS)
        self.start("collector", BUILD / "pagemill-collector", "--endpoint", endpoint)
        wait_until(lambda: "serving" in self.log_of("broker"), "the broker")
        text = (self.state / "keys" / "server.key").read_text()
        self.server_key = re.search(r"^public (\S+)$", text, re.M).group(1)
        return broker

    def join(self, name="far", port=None, workers=1, **env):
        port = port or self.port
        return self.start(name, PAGEMILL, "up", "--join", f"tcp://{self.address}:{port}", "--server-key", self.server_key,
                          "--key-file", self.key, "--run", self.dir / name, "--workers", workers, "--models", MODELS,
                          "--drain", 20, env={"PAGEMILL_HOST_ID": f"elsewhere/{name}", **env}, prefix=self.namespace)

    def cli(self, *args):
        return run(args[0], *args[1:], "--socket", self.rundir / "client.sock")

    def read(self, name, *options):
        """What the fleet makes of the document: the names and bytes of its files."""
        out = self.dir / name
        self.expect(self.cli("submit", DOCUMENT, "--pages", PAGES, "--again", "--wait", "-o", out, *options), 0)
        return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    def counter(self, name):
        text = self.expect(self.cli("top", "--once"), 0).stdout.decode()
        found = re.search(rf"\b{name} (\d+)", text)
        return int(found.group(1)) if found else 0

    def as_read_here(self):
        worker = self.start("here", BUILD / "pagemill-worker", "--endpoint", f"ipc://{self.rundir}/work.sock", "--models",
                            MODELS)
        files = self.read("here-out")
        worker.terminate()
        worker.wait()
        return files

    def test_same_bytes(self):
        self.enter_namespace()
        self.broker()
        here = self.as_read_here()
        self.assertEqual(self.counter("crops_sent"), 0)
        self.join(workers=2)
        far = self.read("far-out")
        self.assertGreater(len(far), 1)
        self.assertEqual(far, here)
        self.assertGreater(self.counter("crops_sent"), 3)

    def enter_namespace(self):
        """The far host gets a network of its own; without permission it stays on the loopback."""
        name, number = f"pm{os.getpid()}", os.getpid() % 250
        near, far = f"{name}a"[-15:], f"{name}b"[-15:]
        address = f"10.231.{number}.1"
        steps = [("netns", "add", name), ("link", "add", near, "type", "veth", "peer", "name", far),
                 ("link", "set", far, "netns", name), ("addr", "add", f"{address}/24", "dev", near),
                 ("link", "set", near, "up"), ("-n", name, "addr", "add", f"10.231.{number}.2/24", "dev", far),
                 ("-n", name, "link", "set", far, "up")]
        self.addCleanup(subprocess.run, ["ip", "link", "del", near], check=False, capture_output=True)
        self.addCleanup(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
        try:
            for step in steps:
                subprocess.run(["ip", *step], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no network namespace here ({getattr(error, 'stderr', error)}): on the loopback")
            return
        print("in a network namespace")
        self.address, self.namespace = address, ["ip", "netns", "exec", name]

    def submit_in_background(self, name):
        out = self.dir / name
        process = self.start(name, PAGEMILL, "submit", DOCUMENT, "--pages", PAGES, "--again", "--wait", "-o", out,
                             "--socket", self.rundir / "client.sock")
        return process, out

    def files(self, out):
        return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    def test_cut_link(self):
        self.broker()
        here = self.as_read_here()
        proxy = Proxy("127.0.0.1", 0, ("127.0.0.1", self.port))
        self.addCleanup(proxy.close)
        self.join(port=proxy.listener.getsockname()[1])
        process, out = self.submit_in_background("out")
        for number in range(3):
            wait_until(lambda: process.poll() is not None or self.counter("crops_sent") > number, "a lease")
            proxy.cut()
        self.assertEqual(process.wait(timeout=120 * SLOW), 0, self.log_of("out"))
        self.assertEqual(self.files(out), here)

    def test_silent_link(self):
        """Bytes go nowhere: the leases are taken back and given to another; what comes late does not count."""
        self.broker(stall=1)
        here = self.as_read_here()
        proxy = Proxy("127.0.0.1", 0, ("127.0.0.1", self.port))
        self.addCleanup(proxy.close)
        self.join("silent", port=proxy.listener.getsockname()[1])
        wait_until(lambda: "worker joined" in self.log_of("broker").split("worker left")[-1], "the far worker")
        process, out = self.submit_in_background("out")
        wait_until(lambda: self.counter("crops_sent") > 0, "a lease")
        proxy.is_blocked = True
        self.join("other")
        self.assertEqual(process.wait(timeout=120 * SLOW), 0, self.log_of("out"))
        self.assertEqual(self.files(out), here)
        proxy.is_blocked = False

    def test_killed_worker_comes_back(self):
        self.broker()
        here = self.as_read_here()
        far = self.join()
        process, out = self.submit_in_background("out")
        wait_until(lambda: self.counter("crops_sent") > 0, "a lease")
        pid = int(re.search(r"started worker-1 pid=(\d+)", self.log_of("far")).group(1))
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(process.wait(timeout=120 * SLOW), 0, self.log_of("out"))
        self.assertEqual(self.files(out), here)
        # Its own supervisor replaces it like any other, and stops in order.
        self.expect(run("restart", "--socket", self.dir / "far" / "fleet.sock"), 0)
        far.terminate()
        self.assertEqual(far.wait(timeout=60 * SLOW), 0, self.log_of("far"))
        self.assertFalse((self.dir / "far").exists())

    def test_only_workers_may_be_elsewhere(self):
        self.broker()
        layoutd = self.start("odd", BUILD / "pagemill-layoutd", "--endpoint", f"ipc://{self.rundir}/work.sock", "--model",
                             DETECTOR, env={"PAGEMILL_HOST_ID": "elsewhere/odd"})
        self.assertNotEqual(layoutd.wait(timeout=60 * SLOW), 0)
        self.assertIn("only workers may be elsewhere", self.log_of("odd"))

    def test_unknown_key(self):
        self.broker()
        public, secret = key_pair()
        self.key.write_text(f"name stranger\npublic {public}\nsecret {secret}\n")
        far = self.join()
        self.assertNotEqual(far.wait(timeout=60 * SLOW), 0)
        self.assertIn("key", self.log_of("far"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
