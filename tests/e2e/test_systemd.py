"""systemd: the units are valid and closed, and the supervisor tells what Type=notify and WatchdogSec ask for.

A fake service manager stands in for systemd: a datagram socket named by NOTIFY_SOCKET."""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import unittest

from fleet import BUILD, PAGEMILL, SOURCE, Case, SLOW, wait_until

UNITS = ("pagemill.service", "pagemill-worker@.service")
EXPOSURE_MOST = 20  # tenths, of `systemd-analyze security`; 100 is wide open


class Units(Case):
    def setUp(self):
        super().setUp()
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")
        for name in UNITS:  # as installed, with a program that is there and a user that exists
            text = (BUILD / "deploy" / name).read_text()
            text = re.sub(r"^(Exec\w+)=\S*/pagemill ", rf"\1={PAGEMILL} ", text, flags=re.M)
            (self.dir / name).write_text(re.sub(r"^(User|Group)=pagemill$", r"\1=root", text, flags=re.M))

    def analyze(self, *args):
        env = dict(os.environ, SYSTEMD_COLORS="0", SYSTEMD_LOG_LEVEL="warning")
        return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, env=env, timeout=60 * SLOW)

    def test_verify(self):
        for name in UNITS:
            with self.subTest(unit=name):
                done = self.analyze("verify", "--man=no", "--generators=no", str(self.dir / name))
                self.assertEqual((done.returncode, done.stderr.strip()), (0, ""))

    def test_security(self):
        for name in UNITS:
            with self.subTest(unit=name):
                done = self.analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_MOST}",
                                    str(self.dir / name))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_system_calls_of_the_decoder_are_allowed(self):
        """The unit's filter must not be narrower than what the decoder's own sandbox needs."""
        done = self.analyze("syscall-filter", "--no-pager")
        groups, name = {}, None
        for line in done.stdout.splitlines():
            if line.startswith("@"):
                name = line.split()[0]
                groups[name] = set()
            elif name and line.startswith("    ") and not line.strip().startswith("#"):
                groups[name].add(line.strip())
        self.assertIn("@system-service", groups)

        def calls(group):
            return set().union(*(calls(word) if word.startswith("@") else {word} for word in groups[group]))

        allowed, denied = calls("@default"), set()
        for value in re.findall(r"^SystemCallFilter=(.*)$", (self.dir / UNITS[0]).read_text(), flags=re.M):
            target = denied if value.startswith("~") else allowed
            for word in value.lstrip("~").split():
                target |= calls(word) if word.startswith("@") else {word}
        allowed -= denied
        source = (SOURCE / "layoutd" / "decode" / "sandbox.c").read_text()
        listed = re.search(r"plain_calls\[\] = \{(.*?)\};", source, flags=re.S).group(1)
        needed = set(re.findall(r"SCMP_SYS\((\w+)\)", listed))
        needed |= set(re.findall(r"SYS_(landlock_\w+)", source)) | {"seccomp", "prctl", "pidfd_open", "pidfd_send_signal"}
        self.assertGreater(len(needed), 30)
        self.assertEqual(needed - allowed, set())


class Notify(Case):
    def start(self, address, **environment):
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(address)
        manager.settimeout(60 * SLOW)
        self.addCleanup(manager.close)
        shown = "@" + address[1:] if address.startswith("\0") else address
        log = open(self.dir / "up.log", "ab")
        self.addCleanup(log.close)
        process = subprocess.Popen([PAGEMILL, "up", "--state", str(self.dir / "state"), "--run", str(self.dir / "run"),
                                    "--workers", "1", "--drain", "7"], stdout=log, stderr=log,
                                   env=dict(os.environ, NOTIFY_SOCKET=shown, **environment))
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return manager, process

    def until(self, manager, word):
        """All datagrams up to the one that holds the line, as lists of lines."""
        seen = []
        while not seen or not any(line.startswith(word) for line in seen[-1]):
            seen.append(manager.recv(4096).decode().splitlines())
        return seen

    def test_datagrams(self):
        manager, process = self.start(str(self.dir / "notify"), WATCHDOG_USEC="400000")
        first = self.until(manager, "READY=1")
        self.assertIn(["READY=1"], first)
        self.assertTrue(any(line.startswith("STATUS=starting") for lines in first for line in lines), first)
        for _ in range(3):
            self.until(manager, "WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        self.until(manager, "STATUS=serving, processes are being replaced")
        self.until(manager, "STATUS=serving; 4 processes")
        process.send_signal(signal.SIGTERM)
        stopping = self.until(manager, "STOPPING=1")[-1]
        self.assertIn("EXTEND_TIMEOUT_USEC=11000000", stopping)  # --drain and the end after it
        self.assertEqual(process.wait(timeout=60 * SLOW), 0)

    def test_abstract_socket_and_anothers_watchdog(self):
        manager, process = self.start(f"\0pagemill-test-{os.getpid()}", WATCHDOG_USEC="1000", WATCHDOG_PID="1")
        seen = self.until(manager, "READY=1")
        process.send_signal(signal.SIGTERM)
        seen += self.until(manager, "STOPPING=1")
        process.wait(timeout=60 * SLOW)
        self.assertFalse(any("WATCHDOG=1" in lines for lines in seen), seen)

    def test_manager_that_is_gone(self):
        manager, process = self.start(str(self.dir / "notify"))
        self.until(manager, "READY=1")
        manager.close()
        os.unlink(self.dir / "notify")
        wait_until((self.dir / "run" / "fleet.sock").exists, "the fleet")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60 * SLOW), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
