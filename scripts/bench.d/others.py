"""What is neither echo nor broadcast: send by id, churn, memory, start-up, reload."""

import json
import os
import struct
import subprocess
import threading
import time

import servers
from figures import median, rows_of
from processes import LOAD_CORE, SERVER_CORE, Process, load

BASE = "plain C"


def send(bench, report):
    """`moonport.send` to a client of the same worker and of another, in one server with two workers."""
    report.say("send by id: to the same worker and to the other")
    process = servers.moonport("send.lua", workers=2, core=None)(bench)
    rounds = []
    for _ in range(bench.rounds):
        figures = {}
        for name, which in (("same worker", "same"), ("other worker", "other")):
            before = process.cpu_ns()
            command = [bench.program("pairs-load"), str(process.port), "20", which, str(bench.seconds)]
            messages, seconds = load(command, core=None).split()
            cpu = process.cpu_ns() - before
            figures[name] = {"cpu_ns": cpu / int(messages), "per_second": int(messages) / float(seconds)}
        rounds.append(figures)
    process.stop()
    report.add(rows_of("send by id", {"in_flight": 16, "pairs": 20, "workers": 2}, rounds, "same worker"))
    added = median([(r["other worker"]["cpu_ns"] - r["same worker"]["cpu_ns"]) / 1000 for r in rounds])
    report.bar("send by id to another worker: added CPU per message, µs", added, 0.5, "at most")


def churn(bench, report):
    """Connections that live for one message."""
    report.say("churn: connect, one line, close")
    starters = {BASE: servers.baseline("echo"), "moonport": servers.moonport("echo.lua", "line"), **servers.ECHO_PEERS}
    processes = bench.start_all(starters)
    rounds = []
    for _ in range(bench.rounds):
        figures = {}
        for name, process in processes.items():
            before = process.cpu_ns()
            # Fewer than there are ports, which the kernel keeps for a while after a close.
            done, seconds = load([bench.program("churn-load"), str(process.port), "50", "5000"]).split()
            figures[name] = {"cpu_ns": (process.cpu_ns() - before) / int(done), "per_second": int(done) / float(seconds)}
        rounds.append(figures)
    for process in processes.values():
        process.stop()
    report.add(rows_of("churn", {"at_once": 50}, rounds, BASE))


def memory(bench, report):
    """Resident size with no client, and its growth for each idle connection after one echo."""
    connections = 10_000
    report.say(f"memory: {connections} idle connections")
    starters = {BASE: servers.baseline("echo"), "moonport": servers.moonport("echo.lua", "line"), **servers.ECHO_PEERS}
    for name, process in bench.start_all(starters).items():
        time.sleep(0.3)
        empty = process.resident_bytes()
        command = ["taskset", "-c", str(LOAD_CORE), bench.program("hold-load"), str(process.port), str(connections)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        held = holder.stdout.readline()
        figures = {"resident_mib": empty / (1 << 20)}
        if held:
            figures["bytes_per_connection"] = (process.resident_bytes() - empty) / connections
        else:
            report.say(f"memory: {name} did not take {connections} connections")
        holder.stdin.close()
        holder.wait()
        process.stop()
        report.add(rows_of("memory", {"connections": connections}, [{name: figures}], BASE))
        if name == "moonport":
            report.bar("resident growth per idle connection, bytes", figures.get("bytes_per_connection"), 700, "at most")
            report.bar("resident size, one worker, no client, MiB", figures["resident_mib"], 12, "at most")


def start(bench, report):
    """From the start of the process to its line `listening on`."""
    report.say("start-up")
    seconds = []
    for _ in range(max(bench.rounds, 5) * 2):
        command = [servers.MOONPORT, "run", os.path.join(servers.HERE, "echo.lua"), "--workers", "1", "--admin"]
        process = Process(command + [bench.program("start.sock"), "--", "line"], SERVER_CORE, folder=bench.folder)
        seconds.append(process.wait_for_line())
        process.stop()
    figures = {"start_ms": median(seconds) * 1000, "fastest_ms": min(seconds) * 1000}
    report.add(rows_of("start", {}, [{"moonport": figures}], BASE))
    report.bar("start to `listening on`, ms", figures["start_ms"], 20, "at most")


def reload(bench, report):
    """10,000 clients under an even load, with reloads and without: what these add to the longest answer, and what they lose."""
    connections, rate, seconds = 10_000, 5_000, 4
    report.say(f"reload: {connections} clients, {rate} messages/s")
    process = servers.moonport("echo.lua", "line", workers=2, core=None)(bench)
    command = [servers.MOONPORT, "bench", f"127.0.0.1:{process.port}", "--json", "--connections", str(connections),
               "--rate", str(rate), "--duration", str(seconds)]
    rounds = []
    for _ in range(min(bench.rounds, 3)):
        quiet = json.loads(load(command, core=None))
        times = []
        thread = threading.Thread(target=reload_some, args=(process, times, seconds))
        thread.start()
        try:
            busy = json.loads(load(command, core=None))
        finally:
            thread.join()
        lost = sum(busy[key] for key in ("wrong", "unanswered", "connections_lost", "overdue"))
        rounds.append({"moonport": {
            "added_ms": (busy["latency_ns"]["max"] - quiet["latency_ns"]["max"]) / 1e6,
            "longest_ms": busy["latency_ns"]["max"] / 1e6,
            "longest_without_ms": quiet["latency_ns"]["max"] / 1e6,
            "reload_ms": median(times) * 1000 if times else 0,
            "reloads": len(times),
            "lost": lost,
        }})
    process.stop()
    report.add(rows_of("reload", {"connections": connections, "per_second": rate}, rounds, BASE))
    figures = [r["moonport"] for r in rounds]
    report.bar("reload with 10,000 clients: longest added delay, ms", median([f["added_ms"] for f in figures]), 10, "at most")
    report.bar("reload with 10,000 clients: messages and clients lost", sum(f["lost"] for f in figures), 0, "at most")


def reload_some(process, times, seconds):
    """Three reloads, spread over the load once it has connected."""
    time.sleep(seconds * 0.4)
    for _ in range(3):
        began = time.monotonic()
        result = subprocess.run([servers.MOONPORT, "reload", "--admin", process.admin], capture_output=True)
        if result.returncode == 0:
            times.append(time.monotonic() - began)
        time.sleep(seconds * 0.1)


def allocations(bench, report):
    """Heap allocations per message in the steady state: Lua's, which C code asks for, and all others, which are Swift's."""
    report.say("allocations")
    counts = bench.program("allocations.count")
    preload = {"LD_PRELOAD": bench.program("count-allocations.so"), "COUNT_FILE": counts}
    process = servers.moonport("echo.lua", "line", environment=preload)(bench)
    command = [servers.MOONPORT, "bench", f"127.0.0.1:{process.port}", "--json", "--pipeline", "16", "--duration"]

    def measured(seconds):
        with open(counts, "rb") as file:
            before = struct.unpack("QQ", file.read(16))
        messages = json.loads(load(command + [str(seconds)]))["messages_back"]
        time.sleep(0.2)
        with open(counts, "rb") as file:
            after = struct.unpack("QQ", file.read(16))
        return messages, after[0] - before[0], after[1] - before[1]

    measured(0.2)
    # What comes and goes with the connections is in both and drops out.
    short, long = measured(0.2), measured(1)
    process.stop()
    messages = long[0] - short[0]
    figures = {"lua_allocations": (long[1] - short[1]) / messages, "swift_allocations": (long[2] - short[2]) / messages}
    report.add(rows_of("allocations", {"codec": "line"}, [{"moonport": figures}], BASE))
    # Less than one in ten thousand messages is what happens beside them, such as a connection's end.
    report.bar("Swift heap allocations per message", abs(round(figures["swift_allocations"], 4)), 0, "at most")
