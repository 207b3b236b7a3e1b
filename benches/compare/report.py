"""Makes a table and a plot of what the systems have printed.

report.py lines ROUND     reads lines of a round (JSON of ferrisdb-bench, too), writes them in one form
report.py report FOLDER   reads FOLDER/lines.txt, writes comparison.md and comparison.svg there

The figures of FoundationDB are not measured here: foundationdb.json has them, with the day and the conditions. They are scaled by what
etcd does today and did that day.
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
MIXES = {
    "read": "1 read",
    "update": "1 blind update",
    "read-modify-write": "1 read and 1 write of a row",
    "nine-reads-one-update": "9 reads, 1 read and write",
}
STAGES = {
    "read-version": "read version",
    "read-at-a-known-version": "read at a version held",
    "read-version-and-read": "read version and read",
    "commit-after-a-read": "commit after a read",
    "blind-commit": "commit of a blind write",
    "read-modify-write": "whole read-modify-write transaction",
}
FOUNDATIONDB = json.loads((pathlib.Path(__file__).parent / "foundationdb.json").read_text())


def line(fields):
    return " ".join(f"{name}={value}" for name, value in fields.items())


def of_ferrisdb(text):
    """The lines of one run of ferrisdb-bench: the run, and the parts of its operations."""
    run = json.loads(text)
    name = FERRISDB_NAMES.get(run["workload"], run["workload"])
    if name == "transfer" and run["accounts"] == 100:
        name = "transfer-100"
    system = "ferrisdb-embedded" if run["target"].startswith("embedded") else "ferrisdb"
    common = {"system": system, "workload": name, "clients": run["clients"]}
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
            of_stage = {"workload": "part-" + stage.replace(" ", "-"), "ops_s": 0}
            yield {**common, **of_stage, **latency(of)}


def lines(round_number):
    for text in sys.stdin:
        if text.startswith("{"):
            for fields in of_ferrisdb(text):
                print(line({**fields, "round": round_number}), flush=True)
        elif text.startswith("version "):
            print(text.rstrip(), flush=True)
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
        self.runs, self.versions = {}, {}
        for text in path.read_text().splitlines():
            if text.startswith("version "):
                _, system, version = text.split(maxsplit=2)
                self.versions[system] = version
                continue
            fields = dict(field.split("=", 1) for field in text.split())
            name = (fields["system"], fields["workload"], int(fields["clients"]))
            self.runs.setdefault(name, {})[fields["round"]] = fields

    def values(self, system, workload, clients, field):
        runs = self.runs.get((system, workload, clients), {})
        return {round_number: float(fields[field]) for round_number, fields in runs.items() if field in fields}

    def median(self, *name):
        values = self.values(*name)
        return statistics.median(values.values()) if values else None

    def ratio(self, system, other, workload, clients, field="ops_s", other_workload=None):
        """The median of the ratios within each round: the machine may change between rounds."""
        own = self.values(system, workload, clients, field)
        others = self.values(other, other_workload or workload, clients, field)
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
    ]
    for system, place in (("ferrisdb", "one client"), ("ferrisdb-embedded", "embedded, one client")):
        rows.append((f"FerrisDB, {place} that only reads: read version and read", system, "read", 1))
        rows += [(f"FerrisDB, {place}: {title}", system, f"part-{stage}", 1) for stage, title in STAGES.items()]
    yield "| | a second | p50 | p99 |"
    yield "| --- | --- | --- | --- |"
    for title, *name in rows:
        p50, p99, rate = (results.median(*name, field) for field in ("p50_us", "p99_us", "ops_s"))
        if p50 is not None:
            yield f"| {title} | {count(rate) if rate else '-'} | {micros(p50)} | {micros(p99)} |"
    scanned = results.median("ferrisdb", "scan-rows", 64, "ops_s")
    if scanned:
        yield f"| FerrisDB, 64 clients: rows read in ranges of 1,000 | {count(scanned)} | - | - |"


def spread(low, high, text):
    return text(low) if low == high else f"{text(low)} - {text(high)}"


class Scaled:
    """The figures of FoundationDB, as they would be at the speed that the machine has today: etcd is the measure."""

    DAY = FOUNDATIONDB["etcd"]

    def __init__(self, results):
        self.results = results
        of_day = {
            "get": ("read", 64, "ops_s", self.DAY["get_s"]),
            "put": ("update", 64, "ops_s", self.DAY["put_s"]),
            "get_alone": ("read", 1, "p50_us", self.DAY["get_p50_us"]),
            "put_alone": ("update", 1, "p50_us", self.DAY["put_p50_us"]),
        }
        # For each round how many times as fast etcd is today: a latency twice as long is half as fast.
        self.rounds = {}
        for name, (workload, clients, field, then) in of_day.items():
            today = results.values("etcd", workload, clients, field)
            is_latency = field == "p50_us"
            self.rounds[name] = {n: then / value if is_latency else value / then for n, value in today.items() if value}

    def factor(self, name):
        return statistics.median(self.rounds[name].values()) if self.rounds[name] else None

    def against(self, measured, name, figure, is_latency=False):
        """The median over the rounds of what was measured, divided by the figure at the speed of the same round."""
        speeds = self.rounds[name]
        scaled = {number: figure / speed if is_latency else figure * speed for number, speed in speeds.items()}
        ratios = [value / scaled[number] for number, value in measured.items() if number in scaled]
        return statistics.median(ratios) if ratios else None

    def mix(self, mix):
        """Throughput against the better end of what FoundationDB did, p99 against the better end as well."""
        name = ("ferrisdb", mix["workload"], mix["clients"])
        rate, p99 = (self.results.values(*name, field) for field in ("ops_s", "p99_us"))
        if "tx_s" not in mix:
            return None, None
        return (
            self.against(rate, mix["scale"], max(mix["tx_s"])),
            self.against(p99, mix["scale"], min(mix["p99_us"]), is_latency=True),
        )

    def alone(self, stage, field):
        measured = self.results.values("ferrisdb", f"part-{stage['stage']}", 1, field)
        return self.against(measured, f"{stage['scale']}_alone", stage[field], is_latency=True)

    def table(self):
        factors = {name: self.factor(name) for name in self.rounds}
        if not all(factors.values()):
            yield "etcd was not measured: there is nothing to scale the figures of FoundationDB with."
            return
        yield f"{FOUNDATIONDB['what']}; {FOUNDATIONDB['date']}. {self.DAY['what']}: get {self.DAY['get_s']:,}, put {self.DAY['put_s']:,};"
        yield f"{self.DAY['get_p50_us']} µs, {self.DAY['put_p50_us']} µs. So its figures are multiplied by what etcd does today divided by that:"
        yield f"with many in flight by **{factors['get']:.2f}** (get) and **{factors['put']:.2f}** (put), latencies by the inverse; one at a"
        yield f"time by **{factors['get_alone']:.2f}** (get) and **{factors['put_alone']:.2f}** (put). Which of them says the column. Ratios are"
        yield "medians of those within each round, to the better end of the range."
        yield ""
        yield "| | in flight | FoundationDB that day | times | FoundationDB scaled | FerrisDB | throughput | p99 |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for mix in FOUNDATIONDB["mixes"]:
            name = ("ferrisdb", mix["workload"], mix["clients"])
            if name not in self.results.runs:
                continue
            rate, p50, p99 = (self.results.median(*name, field) for field in ("ops_s", "p50_us", "p99_us"))
            own = f"**{count(rate)}/s** {micros(p50)}, {micros(p99)}"
            cells, speed = ["-", "-", "-"], factors[mix["scale"]]
            if "tx_s" in mix:
                times = [spread(*mix["tx_s"], count), *(spread(*mix[field], micros) for field in ("p50_us", "p99_us"))]
                scaled = [spread(*(value * speed for value in mix["tx_s"]), count)]
                scaled += [spread(*(value / speed for value in mix[field]), micros) for field in ("p50_us", "p99_us")]
                cells = [
                    f"{times[0]}/s {times[1]}, {times[2]}",
                    f"{speed:.2f} ({mix['scale']})",
                    f"{scaled[0]}/s {scaled[1]}, {scaled[2]}",
                ]
            ratios = (f"{ratio:.2f}" if ratio else "-" for ratio in self.mix(mix))
            yield f"| {MIXES[mix['workload']]} | {mix['clients']} | {' | '.join(cells)} | {own} | {' | '.join(ratios)} |"
        yield ""
        yield "| One at a time, p50 and p99 | FoundationDB that day | times | FoundationDB scaled | FerrisDB | p50 | p99 |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for stage in FOUNDATIONDB["alone"]:
            name = ("ferrisdb", f"part-{stage['stage']}", 1)
            if name not in self.results.runs:
                continue
            speed = factors[f"{stage['scale']}_alone"]
            fields = ("p50_us", "p99_us")
            cells = [
                ", ".join(micros(stage[field]) for field in fields),
                f"{1 / speed:.2f} ({stage['scale']})",
                ", ".join(micros(stage[field] / speed) for field in fields),
                ", ".join(micros(self.results.median(*name, field)) for field in fields),
                *(f"{self.alone(stage, field):.2f}" for field in fields),
            ]
            yield f"| {STAGES[stage['stage']]} | {' | '.join(cells)} |"


class Targets:
    """What FerrisDB is meant to reach, and whether it does: medians over the rounds of what holds within a round."""

    def __init__(self, results):
        self.results, self.scaled = results, Scaled(results)

    def rows(self):
        """Title, what is wanted, what was measured, whether that is enough (None if it was not measured)."""
        for workload, title in (("read-in-tens", "one after the other"), ("read-ten-at-once", "issued together")):
            what = f"rows read in transactions of ten, {title}, 64 clients"
            yield self.times(what, workload, "etcd", "get", 10, other_workload="read")
            yield self.times(what, workload, "redis", "GET", 1.5, other_workload="read")
        yield self.times("blind updates, 64 clients", "update", "etcd", "put", 4)
        yield self.times("blind updates, 64 clients", "update", "postgres", "UPDATE", 3)
        yield self.times("blind updates, 64 clients", "update", "redis", "SET", 1)
        for workload, accounts, of_etcd in (("transfer", "100,000", 5), ("transfer-100", "100", 2)):
            what = f"transfers over {accounts} accounts, 64 clients"
            yield self.times(what, workload, "postgres", "the same", 5)
            yield self.times(what, workload, "etcd", "the same", of_etcd)
        commit = ("ferrisdb", "part-blind-commit")
        yield self.latency(
            "blind commit, one client, p50", commit, ("limit", "fdatasync"), "fdatasync + 150 µs", plus=150
        )
        yield self.latency("blind commit, one client, p50", commit, ("etcd", "update"), "etcd's put", is_below=True)
        read = "part-read-version-and-read"
        echo = ("limit", "tcp-echo")
        yield self.latency("read version and read, one client, p50", ("ferrisdb", read), echo, "3 x echo", times=3)
        embedded = self.results.median("ferrisdb-embedded", "read", 1, "p50_us")
        enough = None if embedded is None else embedded < 20
        yield "read version and read, one client that only reads, embedded, p50", "< 20 µs", micros(embedded) if embedded else "-", enough
        scanned = self.results.median("ferrisdb", "scan-rows", 64, "ops_s")
        enough = None if scanned is None else scanned >= 3e6
        yield "rows of range scans, 64 clients", "3,000,000/s", f"{count(scanned)}/s" if scanned else "-", enough
        for mix in FOUNDATIONDB["mixes"]:
            if "tx_s" not in mix:
                continue
            title = f"{MIXES[mix['workload']]}, {mix['clients']} in flight"
            rate, p99 = self.scaled.mix(mix)
            enough = None if rate is None or p99 is None else rate >= 2 and p99 < 1
            found = "-" if enough is None else f"{rate:.2f} x; p99 {p99:.2f} x"
            yield title, "2 x FoundationDB, at a lower p99", found, enough
        for stage in FOUNDATIONDB["alone"]:
            ratio = self.scaled.alone(stage, "p50_us")
            found = f"{ratio:.2f} x" if ratio else "-"
            enough = ratio <= 0.5 if ratio else None
            yield f"{STAGES[stage['stage']]}, one at a time, p50", "0.5 x FoundationDB", found, enough

    def times(self, title, workload, other, what, wanted, other_workload=None):
        ratio = self.results.ratio("ferrisdb", other, workload, 64, other_workload=other_workload)
        found = f"{ratio:.2f} x" if ratio else "-"
        return title, f"{wanted} x {SYSTEMS[other]} {what}".replace(" the same", ""), found, ratio and ratio >= wanted

    def latency(self, title, own, other, wanted, times=1, plus=0, is_below=False):
        """Within each round how far it is from what is allowed, as a share of that."""
        owns, others = (self.results.values(*name, 1, "p50_us") for name in (own, other))
        allowed = {number: value * times + plus for number, value in others.items()}
        shares = [value / allowed[number] for number, value in owns.items() if number in allowed]
        if not shares:
            return title, wanted, "-", None
        share = statistics.median(shares)
        found = f"{micros(statistics.median(owns.values()))} of {micros(statistics.median(allowed.values()))}: {share:.2f} x"
        wanted = ("< " if is_below else "at most ") + wanted
        return title, wanted, found, share < 1 if is_below else share <= 1

    def table(self):
        verdicts = {True: "met", False: "**missed**", None: "not measured"}
        rows = list(self.rows())
        met = sum(1 for row in rows if row[3])
        yield f"{met} of {len(rows)} are met."
        yield ""
        yield "| | target | measured | |"
        yield "| --- | --- | --- | --- |"
        for title, wanted, found, enough in rows:
            yield f"| {title} | {wanted} | {found} | {verdicts[enough if enough is None else bool(enough)]} |"


def plot(results):
    """Horizontal bars, a group for each workload; within a group they share a scale, which begins at zero."""
    groups = []
    for workload, title in WORKLOADS.items():
        rates = {system: results.median(system, workload, 64, "ops_s") for system in SYSTEMS}
        rates = {system: rate for system, rate in rates.items() if rate}
        # What only FerrisDB can do stands below what the others do instead.
        if len(rates) == 1 and workload.startswith("read-"):
            others = {system: results.median(system, "read", 64, "ops_s") for system in list(SYSTEMS)[1:]}
            rates |= {system: rate for system, rate in others.items() if rate}
            title = {"read-in-tens": "rows, ten in a transaction (others: one)"}.get(
                workload, "rows, ten at once (others: one)"
            )
        if rates:
            groups.append((title, rates))
    bar, left, width, columns, column_width = 20, 88, 210, 2, 400
    heights = [30 + bar * len(rates) for _, rates in groups]
    per_row = [max(heights[at : at + columns]) for at in range(0, len(heights), columns)]
    total, height = columns * column_width + 10, 70 + sum(per_row) + 16 * len(per_row)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" width="{total}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222">'
    )
    yield f'<rect width="{total}" height="{height}" fill="white"/>'
    yield '<text x="16" y="26" font-size="16" font-weight="bold">Operations a second, 64 clients</text>'
    yield (
        '<text x="16" y="45" fill="#666">Client and server on the same machine, every commit synced to disk; longer is better, '
        "each group has its own scale</text>"
    )
    y = 62
    for at, (title, rates) in enumerate(groups):
        x, top = 16 + at % columns * column_width, y
        yield f'<text x="{x}" y="{top + 20}" font-weight="bold">{title}</text>'
        most = max(rates.values())
        for place, (system, rate) in enumerate(rates.items()):
            length, line_y = max(1, rate / most * width), top + 28 + place * bar
            weight = ' font-weight="bold"' if system == "ferrisdb" else ""
            yield f'<text x="{x + left - 8}" y="{line_y + 14}" text-anchor="end"{weight}>{SYSTEMS[system]}</text>'
            yield f'<rect x="{x + left}" y="{line_y + 2}" width="{length:.0f}" height="{bar - 4}" rx="2" fill="{COLOURS[system]}"/>'
            yield f'<text x="{x + left + length + 6:.0f}" y="{line_y + 14}"{weight}>{count(rate)}</text>'
        if at % columns == columns - 1 or at == len(groups) - 1:
            y += per_row[at // columns] + 16
    yield "</svg>"


def report(folder):
    results = Results(folder / "lines.txt")
    rounds = {number for runs in results.runs.values() for number in runs}
    names = [f"{title} {results.versions[system]}" for system, title in SYSTEMS.items() if system in results.versions]
    versions = f"Versions: {', '.join(names)}." if names else ""
    text = [
        f"Medians of {len(rounds)} rounds: operations a second, latency p50 and p99, CPU time of client + server for each "
        "operation; of reads in transactions of ten the latencies are those of a transaction. The last column is the median of the "
        "ratios within each round.",
        "",
        *([versions, ""] if versions else []),
        *table(results),
        "",
        "## What the machine can do, and the parts of a transaction",
        "",
        *limits(results),
        "",
        "## Beside FoundationDB",
        "",
        *Scaled(results).table(),
        "",
        "## Targets",
        "",
        *Targets(results).table(),
        "",
    ]
    (folder / "comparison.md").write_text("\n".join(text))
    (folder / "comparison.svg").write_text("\n".join(plot(results)) + "\n")


if sys.argv[1] == "lines":
    lines(sys.argv[2])
else:
    report(pathlib.Path(sys.argv[2]))
