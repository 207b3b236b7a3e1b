"""Makes tables and small multiples of the curves: report.py FOLDER reads lines.txt there, writes growth.md and growth.svg."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from plot import Panel, short, svg  # noqa: E402

WORKLOADS = ["point-read", "blind-update", "scan"]
CURVES = {
    "clients": ("clients", "clients", "More clients: 100,000 rows, values of 100 bytes"),
    "keys": ("keys", "rows", "More rows: 64 clients, values of 100 bytes"),
    "values": ("value_bytes", "bytes of a value", "Larger values: 64 clients, up to 100,000 rows or 500 MB"),
}


def rows_in(run):
    """How many rows an operation is: a scan is many, and counted as rows."""
    done = run["operations_per_second"]
    return run["rows_read_per_second"] / done if run["workload"] == "scan" and done else 1


MEASURES = {
    "operations (rows of scans) a second": lambda run: run["operations_per_second"] * rows_in(run),
    "p99, ms": lambda run: run["latency"]["p99_us"] / 1e3,
    "server memory, MiB": lambda run: (run["server_resident_bytes"] or 0) / 2**20,
    "CPU, µs an operation (row)": lambda run: cpu(run),
    "disk bytes a byte written": lambda run: (
        run["disk_bytes_per_written_byte"] if run["workload"] == "blind-update" else None
    ),
}


def cpu(run):
    return ((run["client_cpu_us_per_operation"] or 0) + (run["server_cpu_us_per_operation"] or 0)) / rows_in(run)


def micros(value):
    if value >= 1e6:
        return f"{value / 1e6:.2f} s"
    return f"{value / 1e3:.2f} ms" if value >= 1e3 else f"{value:.0f} µs"


def count(value):
    digits = len(str(int(value)))
    return f"{round(value, min(0, 3 - digits)):,.0f}"


def digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def table(runs, curve):
    x, x_title, title = CURVES[curve]
    runs = sorted(
        (run for run in runs if run["curve"] == curve), key=lambda run: (WORKLOADS.index(run["workload"]), run[x])
    )
    yield f"### {title}"
    yield ""
    yield f"| | {x_title} | a second | p50 | p99 | CPU client + server | server memory | disk bytes a byte written | MB/s of rows |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for run in runs:
        rows, latency = rows_in(run), run["latency"]
        rate = run["operations_per_second"] * rows
        used = " + ".join(digits((run[f"{side}_cpu_us_per_operation"] or 0) / rows) for side in ("client", "server"))
        ratio = run["disk_bytes_per_written_byte"]
        name = f"{run['workload']}, rows" if run["workload"] == "scan" else run["workload"]
        size = f"{run[x]:,}" if curve != "values" else f"{run[x]:,} ({run['keys']:,} rows)"
        yield (
            f"| {name} | {size} | **{count(rate)}** | {micros(latency['p50_us'])} | {micros(latency['p99_us'])} | {used} µs | "
            f"{(run['server_resident_bytes'] or 0) / 2**20:,.0f} MiB | {f'{ratio:.1f}' if ratio else '-'} | "
            f"{rate * (run['key_bytes'] + run['value_bytes']) / 1e6:,.1f} |"
        )
    yield ""


def panels(runs):
    for number, (title, measure) in enumerate(MEASURES.items()):
        row = []
        for curve, (x, x_title, _) in CURVES.items():
            lines = {}
            for workload in WORKLOADS:
                found = [run for run in runs if run["curve"] == curve and run["workload"] == workload]
                points = sorted((run[x], measure(run)) for run in found if measure(run))
                if points:
                    lines[workload] = points
            row.append(Panel(title, lines, x_title, logarithmic_x=True, logarithmic_y=number in (0, 1, 3), text=short))
        yield row


def main():
    folder = pathlib.Path(sys.argv[1])
    runs = [json.loads(text) for text in (folder / "lines.txt").read_text().splitlines() if text.startswith("{")]
    text = [
        f"Each point is one run of {runs[0]['seconds']:.0f} seconds; client and server share the machine. Scans count as rows; their latencies "
        "are those of a whole scan. What the disk was sent includes what other programs sent it; of reads it is left out.",
        "",
        *(line for curve in CURVES for line in table(runs, curve)),
    ]
    (folder / "growth.md").write_text("\n".join(text))
    below = "Client and server on the same machine, every commit synced; both scales are logarithmic but for memory and disk"
    (folder / "growth.svg").write_text(svg("Cost as it grows", below, list(panels(runs))))


main()
