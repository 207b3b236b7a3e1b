"""What a long run has shown.

report.py rate FOLDER PERCENT   so many percent of the maximum that lines.txt says, operations a second
report.py pace FOLDER           says in pace.txt there every few seconds how much CPU time the same computation takes, until it is stopped
report.py report FOLDER         writes soak.md and soak.svg there; the exit code is 1 if it decays, or memory grows
"""

import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from plot import Panel, short, svg  # noqa: E402

# What the roles keep, of the gauges in docs/reference/metrics.md; whether it is memory, and its unit.
KEPT = {
    "storage.window": ("window of versions", True, "MiB"),
    "storage.engine_memory": ("engine: memory", True, "MiB"),
    "log.memory": ("log: memory", True, "MiB"),
    "resolver.conflict_set": ("conflict set, entries", True, ""),
    "log.disk": ("log: disk", False, "MiB"),
    "storage.engine_disk": ("engine: disk", False, "MiB"),
}
DECAY_MAX = GROWTH_MAX = 0.10


PACE_EVERY_S = 2


def pace(folder):
    """CPU time and not time: it is not about who gets the processor, but about how fast that is."""
    with open(folder / "pace.txt", "w", buffering=1) as out:
        while True:
            began = time.process_time()
            sum(number * number for number in range(100_000))
            print(f"{time.time():.1f} {time.process_time() - began:.6f}", file=out)
            time.sleep(PACE_EVERY_S)


def paces(folder, seconds):
    """Seconds from the beginning of the run, which ended with the last measurement, and the CPU time of the computation."""
    found = [tuple(map(float, text.split())) for text in (folder / "pace.txt").read_text().splitlines()]
    end = found[-1][0] if found else 0
    return [(at - (end - seconds), cpu) for at, cpu in found]


def micros(value):
    if value >= 1e6:
        return f"{value / 1e6:.2f} s"
    return f"{value / 1e3:.2f} ms" if value >= 1e3 else f"{value:.0f} µs"


def read(folder):
    lines = [json.loads(text) for text in (folder / "lines.txt").read_text().splitlines() if text.startswith("{")]
    runs = [line for line in lines if "interval" not in line]
    return runs, [line["interval"] for line in lines if "interval" in line]


def amount(name, interval):
    """Of what is kept: bytes as MiB."""
    value = interval["kept"].get(name)
    return value / 2**20 if value is not None and KEPT[name][2] == "MiB" else value


def memory(interval):
    return (interval["server_resident_bytes"] or 0) / 2**20


def mean(values):
    values = [value for value in values if value is not None]
    return statistics.mean(values) if values else 0


def rate(run):
    return sum(i["operations_per_second"] * (i["end_s"] - i["begin_s"]) for i in run) / sum(
        i["end_s"] - i["begin_s"] for i in run
    )


def pieces(intervals):
    """Minute by minute, or in ten pieces if it is shorter; what is left over belongs to the last one."""
    length = min(60, intervals[-1]["end_s"] / 10)
    found = {}
    last = max(0, int(intervals[-1]["end_s"] / length + 0.05) - 1)
    for interval in intervals:
        middle = (interval["begin_s"] + interval["end_s"]) / 2
        found.setdefault(min(int(middle / length), last), []).append(interval)
    return [found[number] for number in sorted(found)], "minute" if length == 60 else "piece"


def verdicts(parts, whole, word):
    """Title, what was found, whether it is as it should be."""
    first, last, middle = parts[0], parts[-1], parts[len(parts) // 2 - 1 if len(parts) > 1 else 0]
    change = rate(last) / rate(first) - 1
    yield f"operations a second, last {word} against the first", f"{change:+.1%}", change >= -DECAY_MAX
    late = whole["never_begun"] / max(1, whole["operations"])
    yield "operations that were due and never begun", f"{whole['never_begun']:,} ({late:.2%})", late < 0.001
    p50 = [statistics.median(i["latency"]["p50_us"] for i in part) for part in (first, last)]
    yield f"p50, first and last {word}", " and ".join(map(micros, p50)), None
    p99 = [statistics.median(i["latency"]["p99_us"] for i in part) for part in (first, last)]
    yield f"p99, first and last {word}, medians of intervals", " and ".join(map(micros, p99)), None
    # What is kept fills up at first; what still grows in the second half has no bound, or one that is too far away.
    of = lambda part, read: mean(read(interval) for interval in part)
    before, after = of(middle, memory), of(last, memory)
    growth = after / before - 1 if before else 0
    found = f"{before:,.0f} to {after:,.0f} MiB, {growth:+.1%}"
    yield f"memory of the server, from the middle {word} to the last", found, growth <= GROWTH_MAX
    for name, (title, is_memory, unit) in KEPT.items():
        before, after = (of(part, lambda interval: amount(name, interval)) for part in (middle, last))
        growth = after / before - 1 if before else 0
        # A few bytes more of next to nothing are no growth.
        bounded = growth <= GROWTH_MAX or (unit == "MiB" and after - before < 8)
        yield (
            f"{title}, the same",
            f"{before:,.0f} to {after:,.0f} {unit}".rstrip() + f", {growth:+.1%}",
            bounded if is_memory else None,
        )


def table(parts, word, measured):
    between = lambda begin, end: [cpu for at, cpu in measured if begin <= at < end]
    slowness = [statistics.median(between(part[0]["begin_s"], part[-1]["end_s"]) or [0]) for part in parts]
    titles = [f"{title}, {unit}".rstrip(", ") for title, _, unit in KEPT.values()]
    yield f"| {word} | a second | p50 | p99 | p99.9 | greatest | same computation, CPU | conflicts | memory of the server, MiB | {' | '.join(titles)} |"
    yield "| --- " * (9 + len(titles)) + "|"
    for number, part in enumerate(parts, 1):
        latency = lambda name: statistics.median(interval["latency"][name] for interval in part)
        cells = [number, f"{rate(part):,.0f}", *(micros(latency(name)) for name in ("p50_us", "p99_us", "p999_us"))]
        cells += [micros(max(interval["latency"]["max_us"] for interval in part))]
        cells += [f"{slowness[number - 1] * 1e3:.1f} ms"]
        cells += [sum(interval["conflicts"] for interval in part), f"{max(map(memory, part)):,.0f}"]
        cells += [f"{max(amount(name, interval) or 0 for interval in part):,.0f}" for name in KEPT]
        yield f"| {' | '.join(map(str, cells))} |"


def panels(intervals):
    minutes = intervals[-1]["end_s"] >= 120
    over = lambda read: [(i["end_s"] / (60 if minutes else 1), read(i)) for i in intervals]
    x_title = "minutes" if minutes else "seconds"
    panel = lambda title, lines: Panel(title, lines, x_title, marks=False, text=short)
    percentile = lambda name: over(lambda interval: interval["latency"][name] / 1e3)
    kept = lambda name: over(lambda interval: amount(name, interval) or 0)
    return [
        [
            panel("operations a second", {"operations": over(lambda interval: interval["operations_per_second"])}),
            panel(
                "latency, ms",
                {"p50": percentile("p50_us"), "p99": percentile("p99_us"), "p99.9": percentile("p999_us")},
            ),
            panel("memory of the server, MiB", {"server": over(memory)}),
        ],
        [
            panel(
                "memory of the roles, MiB",
                {"window": kept("storage.window"), "engine": kept("storage.engine_memory"), "log": kept("log.memory")},
            ),
            panel("conflict set, entries", {"conflict set": kept("resolver.conflict_set")}),
            panel("disk, MiB", {"log": kept("log.disk"), "engine": kept("storage.engine_disk")}),
        ],
    ]


def report(folder):
    (maximum, whole), intervals = read(folder)
    parts, word = pieces(intervals)
    latency = whole["latency"]
    stages = (
        f"{name} {', '.join(micros(of[field]) for field in ('p50_us', 'p99_us', 'p999_us'))}"
        for name, of in whole["stages"].items()
    )
    found = list(verdicts(parts, whole, word))
    is_good = all(enough is not False for _, _, enough in found)
    words = {True: "good", False: "**not good**", None: ""}
    share = whole["rate"] / maximum["operations_per_second"]
    text = [
        f"`{whole['workload']}`, {whole['clients']} clients, {whole['keys']:,} rows of {whole['key_bytes']} + {whole['value_bytes']} bytes. "
        f"The maximum is {maximum['operations_per_second']:,.0f} operations a second (closed loop, {maximum['seconds']:.0f} s; p99 "
        f"{micros(maximum['latency']['p99_us'])}, p99.9 {micros(maximum['latency']['p999_us'])}); then {whole['rate']:,.0f} a second were "
        f"due ({share:.0%}) for {whole['seconds']:.0f} s.",
        "",
        f"Over all of it {whole['operations_per_second']:,.0f} a second; latency from when an operation was due: p50 "
        f"{micros(latency['p50_us'])}, p99 {micros(latency['p99_us'])}, **p99.9 {micros(latency['p999_us'])}**, greatest "
        f"{micros(latency['max_us'])}. From when it began, p50, p99 and p99.9: {'; '.join(stages)}. CPU for each operation: client "
        f"{whole['client_cpu_us_per_operation'] or 0:.0f} µs, server {whole['server_cpu_us_per_operation'] or 0:.0f} µs; "
        f"{whole['disk_bytes_per_written_byte'] or 0:.1f} bytes to the disk for each byte written.",
        "",
        f"**{'No decay, and memory is bounded' if is_good else 'It decays, or memory grows'}** (both by {DECAY_MAX:.0%} at most).",
        "",
        "| | found | |",
        "| --- | --- | --- |",
        *(f"| {title} | {what} | {words[enough]} |" for title, what, enough in found),
        "",
        f"Rates are means and latencies medians of the intervals of a {word}; memory, disk and the greatest latency are their greatest. "
        "The same computation, every few seconds, in CPU time: where it takes longer the machine is slower, because others share it.",
        "",
        *table(parts, word, paces(folder, whole["seconds"])),
        "",
    ]
    (folder / "soak.md").write_text("\n".join(text))
    below = f"{whole['workload']}, {whole['rate']:,.0f} operations a second due, {share:.0%} of the maximum, client and server on one machine"
    (folder / "soak.svg").write_text(svg("A long run", below, panels(intervals)))
    return is_good


folder = pathlib.Path(sys.argv[2])
if sys.argv[1] == "rate":
    print(round(read(folder)[0][0]["operations_per_second"] * float(sys.argv[3]) / 100))
elif sys.argv[1] == "pace":
    pace(folder)
else:
    sys.exit(0 if report(folder) else 1)
