"""Medians, ratios of servers that ran in turns, and rows of results."""

import statistics


def median(values):
    return statistics.median(values)


def spread(values):
    """How far apart the middle half of the values is, as a share of their median."""
    if len(values) < 2:
        return 0.0
    quarters = statistics.quantiles(values, n=4)
    return (quarters[2] - quarters[0]) / median(values) if median(values) else 0.0


def ratio(rounds, server, other, figure):
    """The median over the rounds of one server's figure divided by the other's in the same round."""
    pairs = [(r[server][figure], r[other][figure]) for r in rounds if server in r and other in r]
    pairs = [(a, b) for a, b in pairs if b]
    return median([a / b for a, b in pairs]) if pairs else None


def rows_of(scenario, case, rounds, base):
    """One row for each server: the medians of its figures, their spread, and the ratio of its cost to the base's."""
    rows = []
    for server in rounds[0]:
        measured = [r[server] for r in rounds if server in r]
        row = {"scenario": scenario, "case": case, "server": server, "rounds": len(measured)}
        for figure in measured[0]:
            values = [m[figure] for m in measured]
            row[figure] = median(values)
            row["spread_" + figure] = round(spread(values), 3)
        for figure in ("cpu_ns", "per_second"):
            if figure in measured[0] and base in rounds[0]:
                row["ratio_" + figure] = ratio(rounds, server, base, figure)
        rows.append(row)
    return rows
