"""scripts/bench once all it needs is installed and moonport is built: options, the small programs, the scenarios in turn."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile

import echo
import fanout
import others
from processes import stop_all
from report import Report
from servers import ROOT, Bench

SCENARIOS = {
    "echo": echo.run,
    "broadcast": fanout.run,
    "send": others.send,
    "churn": others.churn,
    "memory": others.memory,
    "start": others.start,
    "reload": others.reload,
    "allocations": others.allocations,
}
# Program -> source; compiled into the folder of this run.
PROGRAMS = {
    "echo": "scripts/baselines/echo.c",
    "fanout": "scripts/baselines/fanout.c",
    "fanout-load": "scripts/loads/fanout.c",
    "churn-load": "scripts/loads/churn.c",
    "hold-load": "scripts/loads/hold.c",
    "pairs-load": "scripts/loads/pairs.c",
}


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures moonport beside plain C and its peers.")
    parser.add_argument("--only", help="scenarios, by comma: " + ", ".join(SCENARIOS), metavar="NAME,...")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server has its turn (5)", metavar="N")
    parser.add_argument("--seconds", type=float, default=1, help="how long one turn measures (1)", metavar="S")
    parser.add_argument("--full", action="store_true", help="every size, codec and number of connections")
    parser.add_argument("--json", help="also write all figures there", metavar="FILE")
    chosen = parser.parse_args()
    names = chosen.only.split(",") if chosen.only else list(SCENARIOS)
    for name in names:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}; there are {', '.join(SCENARIOS)}")
    if not 1 <= chosen.rounds <= 100:
        parser.error("--rounds takes 1 to 100")
    if not 0.1 <= chosen.seconds <= 60:
        parser.error("--seconds takes 0.1 to 60")
    return chosen, names


def compile_programs(folder):
    for name, source in PROGRAMS.items():
        subprocess.run(["gcc", "-O2", "-o", os.path.join(folder, name), os.path.join(ROOT, source)], check=True)
    library = os.path.join(folder, "count-allocations.so")
    source = os.path.join(ROOT, "scripts/counting/allocations.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)


def main():
    chosen, names = options()
    # Ended from outside, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, chosen.seconds, chosen.rounds, chosen.full)
        try:
            compile_programs(folder)
            for name in names:
                try:
                    SCENARIOS[name](bench, report)
                except (RuntimeError, subprocess.TimeoutExpired) as failure:
                    report.say(f"{name} failed: {failure}")
                    bench.missing[f"scenario {name}"] = str(failure)
                finally:
                    stop_all()
        except KeyboardInterrupt:
            report.say("ended early")
        report.print(bench.missing)
        if chosen.json:
            report.write(chosen.json, bench.missing)


main()
