"""Echo: processor time per message, messages per second and latencies, by load, size and codec."""

import json
from itertools import product

import servers
from figures import ratio, rows_of
from processes import load

BASE = "plain C"


def cases(bench):
    """The loads: (messages in flight, connections, bytes, codec)."""
    if not bench.full:
        return [(1, 50, 64, "line"), (16, 50, 64, "line")]
    every = product((1, 16), (50, 1000), (64, 1024, 65536), ("line", "length", "raw"))
    # A gigabyte in flight would measure the kernel's memory.
    return [case for case in every if not (case[0] == 16 and case[1] == 1000 and case[2] == 65536)]


def measure(bench, process, case, seconds):
    """One load on one server."""
    in_flight, connections, size, codec = case
    before = process.cpu_ns()
    output = load(
        [servers.MOONPORT, "bench", f"127.0.0.1:{process.port}", "--json", "--duration", str(seconds),
         "--pipeline", str(in_flight), "--connections", str(connections), "--size", str(size), "--codec", codec]
    )
    cpu = process.cpu_ns() - before
    figures = json.loads(output)
    latency = figures["latency_ns"]
    return {
        "cpu_ns": cpu / figures["messages_back"],
        "per_second": figures["messages_per_second"],
        "p50_us": latency["p50"] / 1000,
        "p99_us": latency["p99"] / 1000,
        "p99.9_us": latency["p99.9"] / 1000,
        "generator_cpu": figures["generator_cpu"],
    }


def with_peers(case):
    """The peers echo lines, and their settings are for usual sizes; the plain baselines echo anything."""
    return case[1] == 50 and case[2] == 64 and case[3] == "line"


def run(bench, report):
    for codec in sorted({case[3] for case in cases(bench)}):
        own = bench.start_all({BASE: servers.baseline("echo"), "moonport": servers.moonport("echo.lua", codec)})
        peers = bench.start_all(servers.ECHO_PEERS) if codec == "line" else {}
        for case in (c for c in cases(bench) if c[3] == codec):
            compared = {**own, **peers} if with_peers(case) else own
            rounds = alternate(bench, report, compared, case)
            report.add(rows_of("echo", dict(zip(("in_flight", "connections", "bytes", "codec"), case)), rounds, BASE))
            if with_peers(case):
                judge(report, rounds, case[0])
        for process in [*own.values(), *peers.values()]:
            process.stop()


def alternate(bench, report, compared, case):
    """Each server once in each round; a warm-up before the first, since some compile as they run."""
    report.say(f"echo: {case[0]} in flight, {case[1]} connections, {case[2]} bytes, codec {case[3]}")
    able = {}
    for name, process in compared.items():
        try:
            measure(bench, process, case, min(0.3, bench.seconds))
            able[name] = process
        except RuntimeError as failure:
            bench.missing[f"{name}, echo {case}"] = str(failure)[:300]
    return [
        {name: measure(bench, process, case, bench.seconds) for name, process in able.items()}
        for _ in range(bench.rounds)
    ]


def judge(report, rounds, in_flight):
    """The bars for the usual load."""
    what = f"CPU per echoed 64-byte line, {in_flight} in flight, against "
    bars = [(BASE, 1.10 if in_flight == 1 else 1.50), ("HAProxy Lua", 0.90)]
    if in_flight == 16:
        bars.append(("luv LuaJIT", 1.05))
    for other, bar in bars:
        report.bar(what + other, ratio(rounds, "moonport", other, "cpu_ns"), bar, "at most")
