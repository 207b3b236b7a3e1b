"""Makes a table and a plot of what the systems have printed.

report.py lines ROUND     reads lines of a round (JSON of ferrisdb-bench, too), writes them in one form
report.py report FOLDER   reads FOLDER/lines.txt, writes comparison.md and comparison.svg there
"""

import json
import pathlib
import statistics
import sys

SYSTEMS = {"ferrisdb": "FerrisDB", "etcd": "etcd", "redis": "Redis", "postgres": "PostgreSQL"}
COLOURS = {"ferrisdb": "#b7410e", "etcd": "#5b8db8", "redis": "#9aa5b1", "postgres": "#6c7a89"}
WORKLOADS = {
    "read": "read one row",
    "read-in-tens": "read one row, in transactions of ten",
    "read-ten-at-once": "read one row, ten at once in a transaction",
    "update": "update one row",
    "transfer": "transfer (read 2, write 2)",
    "transfer-100": "transfer over 100 accounts",
}
FERRISDB_NAMES = {"point-read": "read", "blind-update": "update"}


def line(fields):
    return " ".join(f"{name}={value}" for name, value in fields.items())


def of_ferrisdb(text):
    """The lines of one run of ferrisdb-bench: the run, and the parts of its operations."""
    run = json.loads(text)
    name = FERRISDB_NAMES.get(run["workload"], run["workload"])
    if name == "transfer" and run["accounts"] == 100:
        name = "transfer-100"
    common = {"system": "ferrisdb", "workload": name, "clients": run["clients"]}
    latency = lambda of: {f"{p}_us": f"{of[f'{p}_us']:.1f}" for p in ("p50", "p99", "p999")}
    rate, rows = run["operations_per_second"], 1
    of_rows = {
        "ten-key-transaction": "read-in-tens",
        "ten-reads-together": "read-ten-at-once",
        "scan": "scan-rows",
    }
    if name in of_rows:
        # Rates and CPU time are those of rows, latencies those of transactions.
        common["workload"] = of_rows[name]
        rows = run["rows_read_per_second"] / rate if rate else 1
        rate = run["rows_read_per_second"]
    cpu = {
        "retries": run["retries"],
        "cli_us": f"{(run['client_cpu_us_per_operation'] or 0) / rows:.2f}",
        "srv_us": f"{(run['server_cpu_us_per_operation'] or 0) / rows:.2f}",
        "cores_busy": f"{run['cores'] or 0:.2f}",
    }
    if name != "latency":
        yield {**common, "ops_s": f"{rate:.0f}", **latency(run["latency"]), **cpu}
    if name == "latency":
        for stage, of in run["stages"].items():
            of_stage = {"workload": stage.replace(" ", "-"), "ops_s": 0}
            yield {**common, **of_stage, **latency(of)}


def lines(round_number):
    for text in sys.stdin:
        if text.startswith("{"):
            for fields in of_ferrisdb(text):
                print(line({**fields, "round": round_number}), flush=True)
        elif text.startswith("system="):
            print(text.rstrip(), f"round={round_number}", flush=True)


def micros(value):
    if value >= 1e6:
        return f"{value / 1e6:.2f} s"
    if value >= 1e3:
        return f"{value / 1e3:.2f} ms"
    return f"{value:.0f} µs"


def count(value):
    """A rate to three digits."""
    digits = len(str(int(value)))
    return f"{round(value, min(0, 3 - digits)):,.0f}"


class Results:
    def __init__(self, path):
        self.runs = {}
        for text in path.read_text().splitlines():
            fields = dict(field.split("=", 1) for field in text.split())
            name = (fields["system"], fields["workload"], int(fields["clients"]))
            self.runs.setdefault(name, {})[fields["round"]] = fields

    def values(self, system, workload, clients, field):
        runs = self.runs.get((system, workload, clients), {})
        return {round_number: float(fields[field]) for round_number, fields in runs.items() if field in fields}

    def median(self, *name):
        values = self.values(*name)
        return statistics.median(values.values()) if values else None

    def ratio(self, system, other, workload, clients, field="ops_s"):
        """The median of the ratios within each round: the machine may change between rounds."""
        own, others = (self.values(name, workload, clients, field) for name in (system, other))
        ratios = [own[number] / others[number] for number in own if others.get(number)]
        return statistics.median(ratios) if ratios else None


def table(results):
    yield "| | clients | " + " | ".join(SYSTEMS.values()) + " | FerrisDB against etcd, Redis, PostgreSQL |"
    yield "| --- | --- | " + "--- | " * len(SYSTEMS) + "--- |"
    for workload, title in WORKLOADS.items():
        for clients in (1, 64):
            if not any((system, workload, clients) in results.runs for system in SYSTEMS):
                continue
            cells = []
            for system in SYSTEMS:
                name = (system, workload, clients)
                rate = results.median(*name, "ops_s")
                if rate is None:
                    cells.append("-")
                    continue
                p50, p99 = (micros(results.median(*name, field)) for field in ("p50_us", "p99_us"))
                cpu = (results.median(*name, "cli_us"), results.median(*name, "srv_us"))
                cells.append(f"**{count(rate)}/s** {p50}, {p99}; CPU {cpu[0]:.0f} + {cpu[1]:.0f} µs")
            against = []
            for other in list(SYSTEMS)[1:]:
                ratio = results.ratio("ferrisdb", other, workload, clients)
                against.append(f"{ratio:.2f}" if ratio else "-")
            yield f"| {title} | {clients} | " + " | ".join(cells) + f" | {', '.join(against)} |"


def limits(results):
    rows = [
        ("fdatasync over existing blocks", "limit", "fdatasync", 1),
        ("loopback TCP echo, 128 bytes", "limit", "tcp-echo", 1),
        ("loopback TCP echo, 64 in flight", "limit", "tcp-echo", 64),
        ("FerrisDB, one client: read version", "ferrisdb", "read-version", 1),
        ("FerrisDB, one client: read at a known version", "ferrisdb", "read-at-a-known-version", 1),
        ("FerrisDB, one client: read version and read", "ferrisdb", "read-version-and-read", 1),
        ("FerrisDB, one client: commit after a read", "ferrisdb", "commit-after-a-read", 1),
        ("FerrisDB, one client: blind commit", "ferrisdb", "blind-commit", 1),
    ]
    yield "| | a second | p50 | p99 |"
    yield "| --- | --- | --- | --- |"
    for title, *name in rows:
        p50, p99, rate = (results.median(*name, field) for field in ("p50_us", "p99_us", "ops_s"))
        if p50 is not None:
            yield f"| {title} | {count(rate) if rate else '-'} | {micros(p50)} | {micros(p99)} |"
    scanned = results.median("ferrisdb", "scan-rows", 64, "ops_s")
    if scanned:
        yield f"| FerrisDB, 64 clients: rows read in ranges of 1,000 | {count(scanned)} | - | - |"


def plot(results):
    """Horizontal bars, a group for each workload; within a group they share a scale."""
    groups = []
    for workload, title in WORKLOADS.items():
        rates = {system: results.median(system, workload, 64, "ops_s") for system in SYSTEMS}
        rates = {system: rate for system, rate in rates.items() if rate}
        if len(rates) > 1:
            groups.append((title, rates))
    bar, gap, left, width = 18, 30, 110, 520
    height = sum(gap + bar * len(rates) for _, rates in groups) + 50
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="760" height="{height}" fill="white"/>'
    yield '<text x="10" y="22" font-size="14" font-weight="bold">Operations a second, 64 clients, client and server on one machine</text>'
    y = 34
    for title, rates in groups:
        y += gap
        yield f'<text x="10" y="{y - 6}" font-weight="bold">{title}</text>'
        most = max(rates.values())
        for system, rate in rates.items():
            length = max(1, rate / most * width)
            yield f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{SYSTEMS[system]}</text>'
            yield f'<rect x="{left}" y="{y + 2}" width="{length:.0f}" height="{bar - 4}" fill="{COLOURS[system]}"/>'
            yield f'<text x="{left + length + 6:.0f}" y="{y + 13}">{count(rate)}</text>'
            y += bar
    yield "</svg>"


def report(folder):
    results = Results(folder / "lines.txt")
    rounds = {number for runs in results.runs.values() for number in runs}
    text = [
        f"Medians of {len(rounds)} rounds: operations a second, latency p50 and p99, CPU time of client + server for each "
        "operation; of reads in transactions of ten the latencies are those of a transaction. The last column is the median of the "
        "ratios within each round.",
        "",
        *table(results),
        "",
        *limits(results),
        "",
    ]
    (folder / "comparison.md").write_text("\n".join(text))
    (folder / "comparison.svg").write_text("\n".join(plot(results)) + "\n")


if sys.argv[1] == "lines":
    lines(sys.argv[2])
else:
    report(pathlib.Path(sys.argv[2]))
