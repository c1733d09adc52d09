"""The servers that are compared: moonport, plain C, and the peers, each with how it is started."""

import glob
import os
import shutil

from processes import SERVER_CORE, Missing, Process, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MOONPORT = os.path.join(ROOT, ".build/release/moonport")
PEERS = os.path.join(ROOT, "scripts/peers")


class Bench:
    """What all scenarios share: the folder of built programs, how long and how often to measure."""

    def __init__(self, folder, seconds, rounds, full):
        self.folder = folder
        self.seconds = seconds
        self.rounds = rounds
        self.full = full
        self.missing = {}

    def program(self, name):
        return os.path.join(self.folder, name)

    def start_all(self, starters):
        """Starts each server of a scenario; one that cannot be had is noted as missing. Returns name -> process."""
        started = {}
        for name, starter in starters.items():
            try:
                started[name] = starter(self)
            except Missing as reason:
                self.missing[name] = str(reason)
        return started


def moonport(script, *arguments, workers=1, core=SERVER_CORE, environment=None):
    """A starter for one of the scripts beside this file."""

    def start(bench):
        admin = os.path.join(bench.folder, f"admin-{free_port()}.sock")
        command = [MOONPORT, "run", os.path.join(HERE, script), "--workers", str(workers), "--admin", admin]
        process = Process(command + (["--", *arguments] if arguments else []), core, environment, bench.folder)
        process.admin = admin
        process.wait_for_line()
        return process

    return start


def baseline(name):
    """A starter for one of the programs of scripts/baselines."""

    def start(bench):
        process = Process([bench.program(name), "0"], folder=bench.folder)
        process.wait_for_line()
        return process

    return start


def peer(program, *arguments, environment=None):
    """A starter for a server that takes its port from BENCH_PORT, or from `{port}` in its arguments."""

    def start(bench):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if path is None:
            raise Missing(f"there is no {program} here, and its Debian package could not be installed")
        port = free_port()
        values = {"BENCH_PORT": str(port), "BENCH_PEERS": PEERS, **(environment or {})}
        process = Process([path, *(a.format(port=port) for a in arguments)], environment=values, folder=bench.folder)
        process.wait_for_port(port)
        return process

    return start


def luv(program, version):
    """A starter for the luv echo on one of its Luas."""

    def start(bench):
        library = glob.glob(f"/usr/lib/*/lua/{version}/luv.so")
        if not library:
            raise Missing("there is no luv here, and its Debian package (lua-luv) could not be installed")
        path = os.path.join(os.path.dirname(library[0]), "?.so")
        return peer(program, os.path.join(PEERS, "luv-echo.lua"), environment={"LUV_CPATH": path})(bench)

    return start


ECHO_PEERS = {
    "HAProxy Lua": peer("haproxy", "-db", "-f", os.path.join(PEERS, "haproxy.cfg")),
    "luv LuaJIT": luv("luajit", "5.1"),
    "luv Lua 5.4": luv("lua5.4", "5.4"),
    "Node": peer("node", os.path.join(PEERS, "node-echo.js")),
}

FANOUT_PEERS = {
    "Redis": peer(
        "redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--client-output-buffer-limit", "pubsub 0 0 0",
    ),
    "NATS": peer("nats-server", "-a", "127.0.0.1", "-p", "{port}"),
    "Node": peer("node", os.path.join(PEERS, "node-fanout.js")),
}
