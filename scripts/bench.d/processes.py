"""Processes that scripts/bench starts: pinned to a core, watched, and ended by the id they were started with."""

import os
import signal
import socket
import subprocess
import tempfile
import time

# Server and load have a core each, where there are two.
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
LOAD_CORE = CORES[-1]
# Longer than any server here takes to start, on a busy machine too.
START_SECONDS = 20
# Longer than any single load takes; one that hangs must not hang the rest.
LOAD_SECONDS_MAX = 120

running = []


class Missing(Exception):
    """A server cannot be had here; the text says why."""


class Process:
    """One server, and what the kernel says of it."""

    def __init__(self, command, core=SERVER_CORE, environment=None, folder=None):
        self.errors = tempfile.NamedTemporaryFile(dir=folder, prefix="server-", suffix=".log", delete=False)
        pin = ["taskset", "-c", str(core)] if core is not None else []
        self.started = time.monotonic()
        self.child = subprocess.Popen(
            pin + command,
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            env={**os.environ, **(environment or {})},
        )
        self.id = self.child.pid
        self.port = None
        running.append(self)

    def log(self):
        with open(self.errors.name, errors="replace") as file:
            return file.read()

    def wait_for_line(self):
        """Waits for `listening on HOST:PORT`; returns the seconds since the start."""
        while time.monotonic() < self.started + START_SECONDS:
            for line in self.log().splitlines():
                if line.startswith("listening on ") and line.rpartition(":")[2].isdigit():
                    self.port = int(line.rpartition(":")[2])
                    return time.monotonic() - self.started
            if self.child.poll() is not None:
                break
            time.sleep(0.0005)
        raise Missing("did not start: " + self.log().strip()[-300:])

    def wait_for_port(self, port):
        """Waits until somebody accepts there."""
        while time.monotonic() < self.started + START_SECONDS:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                self.port = port
                return
            except OSError:
                if self.child.poll() is not None:
                    break
                time.sleep(0.01)
        raise Missing("did not start: " + self.log().strip()[-300:])

    def cpu_ns(self):
        """Processor time of all threads that live, from schedstat (proc(5))."""
        total = 0
        for thread in os.listdir(f"/proc/{self.id}/task"):
            try:
                with open(f"/proc/{self.id}/task/{thread}/schedstat") as file:
                    total += int(file.read().split()[0])
            except FileNotFoundError:
                continue
        return total

    def resident_bytes(self):
        with open(f"/proc/{self.id}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self):
        if self in running:
            running.remove(self)
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.errors.close()
        os.unlink(self.errors.name)


def stop_all():
    """Ends whatever was started and still runs."""
    for process in list(running):
        process.stop()


def load(command, core=LOAD_CORE):
    """Runs a load to its end and returns what it printed."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    result = subprocess.run(pin + command, capture_output=True, text=True, timeout=LOAD_SECONDS_MAX)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
