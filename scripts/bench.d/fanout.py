"""Broadcast: deliveries per second to many subscribers, on one worker and on two."""

import servers
from figures import ratio, rows_of
from processes import load

BASE = "plain C"
PROTOCOLS = {"Redis": "redis", "NATS": "nats"}


def measure(bench, name, process, subscribers, core):
    before = process.cpu_ns()
    command = [bench.program("fanout-load"), PROTOCOLS.get(name, "line"), str(process.port), str(subscribers)]
    # The load settles before it measures; what the server does meanwhile is connecting and little beside the rest.
    output = load(command + [str(bench.seconds)], **core).split()
    deliveries, seconds = int(output[0]), float(output[1])
    return {"cpu_ns": (process.cpu_ns() - before) / deliveries, "per_second": deliveries / seconds}


def compare(bench, report, starters, subscribers, workers):
    core = {} if workers == 1 else {"core": None}
    processes = bench.start_all(starters)
    report.say(f"broadcast: {subscribers} subscribers, {workers} worker{'s' if workers > 1 else ''}")
    rounds = [
        {name: measure(bench, name, process, subscribers, core) for name, process in processes.items()}
        for _ in range(bench.rounds)
    ]
    for process in processes.values():
        process.stop()
    return rounds


def run(bench, report):
    for subscribers in (100, 1000):
        case = {"subscribers": subscribers, "workers": 1}
        starters = {BASE: servers.baseline("fanout"), "moonport": servers.moonport("fanout.lua"), **servers.FANOUT_PEERS}
        rounds = compare(bench, report, starters, subscribers, 1)
        report.add(rows_of("broadcast", case, rounds, BASE))
        if subscribers == 1000:
            what = "deliveries per second to 1,000 subscribers, one worker, against "
            report.bar(what + BASE, ratio(rounds, "moonport", BASE, "per_second"), 0.90, "at least")
            for other in ("Redis", "NATS"):
                report.bar(what + other, ratio(rounds, "moonport", other, "per_second"), 1.0, "above")
    for subscribers in (100, 1000):
        # Both free to use both cores, which they share with the load.
        starters = {
            "one worker": servers.moonport("fanout.lua", core=None),
            "two workers": servers.moonport("fanout.lua", workers=2, core=None),
        }
        rounds = compare(bench, report, starters, subscribers, 2)
        report.add(rows_of("broadcast", {"subscribers": subscribers, "workers": 2}, rounds, "one worker"))
        what = f"deliveries per second to {subscribers:,} subscribers, two workers, against one on the same cores"
        report.bar(what, ratio(rounds, "two workers", "one worker", "per_second"), 1.0, "at least")
