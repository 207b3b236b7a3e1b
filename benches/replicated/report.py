"""Makes the table: report.py FOLDER TITLE reads lines.txt there, writes replicated.md."""

import json
import pathlib
import sys


def micros(value):
    if value >= 1e6:
        return f"{value / 1e6:.2f} s"
    return f"{value / 1e3:.2f} ms" if value >= 1e3 else f"{value:.0f} µs"


def count(value):
    digits = len(str(int(value)))
    return f"{round(value, min(0, 3 - digits)):,.0f}"


def main():
    folder, title = pathlib.Path(sys.argv[1]), sys.argv[2]
    runs = [json.loads(text) for text in (folder / "lines.txt").read_text().splitlines() if text.startswith("{")]
    one = {run["workload"]: run for run in runs if run["target"].startswith("ferrisdb-server started here")}
    many = {run["workload"]: run for run in runs if run["workload"] not in one or run is not one[run["workload"]]}
    text = [
        "A functional figure: all processes and the client share one machine and its disk.",
        "",
        f"| | clients | one process, one log, one copy | {title}, a process each | throughput |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, run in many.items():
        if name == "latency":
            continue
        cells = []
        for of in (one[name], run):
            used = " + ".join(f"{of[f'{side}_cpu_us_per_operation'] or 0:.0f}" for side in ("client", "server"))
            latency = ", ".join(micros(of["latency"][field]) for field in ("p50_us", "p99_us"))
            memory = (of["server_resident_bytes"] or 0) / 2**20
            flushes = of["disk_flushes_per_second"] or 0
            cells.append(
                f"**{count(of['operations_per_second'])}/s** {latency}; CPU {used} µs; {memory:,.0f} MiB; {flushes:,.0f} flushes/s"
            )
        ratio = run["operations_per_second"] / one[name]["operations_per_second"]
        text.append(f"| {name} | {run['clients']} | {' | '.join(cells)} | {ratio:.2f} |")
    if "latency" in many:
        text += [
            "",
            f"| One client, p50 and p99 | one process, one log, one copy | {title}, a process each |",
            "| --- | --- | --- |",
        ]
        for stage, of in many["latency"]["stages"].items():
            alone = one["latency"]["stages"][stage]
            cells = (f"{micros(times['p50_us'])}, {micros(times['p99_us'])}" for times in (alone, of))
            text.append(f"| {stage} | {' | '.join(cells)} |")
    checks = [f"{run['workload']}: {run['check']}" for run in many.values() if run["check"]]
    if checks:
        text += ["", "Checked afterwards: " + "; ".join(checks) + "; all copies are the same, byte for byte."]
    (folder / "replicated.md").write_text("\n".join([*text, ""]))


main()
