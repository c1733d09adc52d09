"""What scripts/bench prints while it runs and at its end: tables for a person, JSON for a program."""

import json
import os
import platform
import subprocess
import sys
import time

# Columns that a table shows, with their titles and digits, in this order.
COLUMNS = [
    ("cpu_ns", "CPU ns/msg", 0),
    ("ratio_cpu_ns", "ratio", 2),
    ("spread_cpu_ns", "spread", 2),
    ("per_second", "per second", 0),
    ("ratio_per_second", "ratio", 2),
    ("p50_us", "p50 µs", 0),
    ("p99_us", "p99 µs", 0),
    ("p99.9_us", "p99.9 µs", 0),
    ("generator_cpu", "load CPU", 2),
    ("resident_mib", "resident MiB", 1),
    ("bytes_per_connection", "bytes/connection", 0),
    ("start_ms", "start ms", 1),
    ("fastest_ms", "fastest ms", 1),
    ("longest_ms", "longest ms", 1),
    ("longest_without_ms", "without ms", 1),
    ("added_ms", "added ms", 1),
    ("reload_ms", "reload ms", 1),
    ("lost", "lost", 0),
    ("lua_allocations", "Lua allocations/msg", 2),
    ("swift_allocations", "Swift allocations/msg", 4),
]


class Report:
    def __init__(self):
        self.began = time.time()
        self.rows = []
        self.bars = []

    def say(self, text):
        print(f"bench: {time.time() - self.began:4.0f} s  {text}", file=sys.stderr, flush=True)

    def add(self, rows):
        self.rows += rows

    def bar(self, figure, value, bar, kind):
        """A figure beside its bar of "Done when"; None is one that could not be measured."""
        passed = None
        if value is not None:
            passed = {"at most": value <= bar, "at least": value >= bar, "above": value > bar}[kind]
        self.bars.append({"figure": figure, "value": value, "bar": bar, "kind": kind, "passed": passed})

    def machine(self):
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        return {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "commit": commit,
            "processor": names[0] if names else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "load_average": os.getloadavg()[0],
        }

    # Text.

    def print(self, missing):
        machine = self.machine()
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
        scenario = None
        for rows in self.cases():
            if rows[0]["scenario"] != scenario:
                scenario = rows[0]["scenario"]
                print(f"\n{scenario}")
            case = ", ".join(f"{key} {value}" for key, value in rows[0]["case"].items())
            print(f"\n  {case or 'all'} ({rows[0]['rounds']} rounds)")
            self.print_table(rows)
        for name, reason in missing.items():
            print(f"\nmissing: {name}: {reason}")
        self.print_bars()

    def cases(self):
        """The rows of each case, which were added together."""
        groups = []
        for row in self.rows:
            if groups and (groups[-1][0]["scenario"], groups[-1][0]["case"]) == (row["scenario"], row["case"]):
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    @staticmethod
    def print_table(rows):
        columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
        table = [["server"] + [title for _, title, _ in columns]]
        for row in rows:
            cells = [row["server"]]
            for name, _, digits in columns:
                cells.append("-" if row.get(name) is None else f"{row[name]:,.{digits}f}")
            table.append(cells)
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        for line in table:
            first = line[0].ljust(widths[0])
            print("    " + "  ".join([first] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]))

    def print_bars(self):
        if not self.bars:
            return
        print("\nagainst the bars\n")
        words = {True: "pass", False: "FAIL", None: "not measured"}
        width = max(len(bar["figure"]) for bar in self.bars)
        for bar in self.bars:
            value = "-" if bar["value"] is None else f"{bar['value']:,.2f}"
            print(f"  {bar['figure'].ljust(width)}  {value:>9}  {bar['kind']:>8} {bar['bar']:<6}  {words[bar['passed']]}")
        passed = sum(bar["passed"] is True for bar in self.bars)
        print(f"\n  {passed} of {len(self.bars)} bars passed; noisy machines show in the spread")

    # JSON.

    def write(self, path, missing):
        result = {"machine": self.machine(), "rows": self.rows, "bars": self.bars, "missing": missing}
        with open(path, "w") as file:
            json.dump(result, file, indent=1, ensure_ascii=False)
            file.write("\n")
