"""Shares of CPU time by part: report.py FOLDER reads what `run` has left there, writes profile.md.

A sample belongs to the first part whose expression matches anywhere on its stack.
"""

import collections
import json
import pathlib
import re
import sys

WAITING = (
    "waiting and waking: epoll, futex, thread switches, looking for the next message",
    r"awake|stay_awake|epoll|futex|__schedule|schedule_|sched_yield|do_idle|try_to_wake|eventfd|wake_up|[Pp]ark",
)
SENDING = ("TCP: sending", r"tcp_sendmsg|sock_write|writev|sock_sendmsg")
RECEIVING = ("TCP: receiving", r"tcp_recvmsg|sock_read|recvfrom|sock_recvmsg|tcp_poll")
PARTS = {
    "server": [
        ("RocksDB: writing, its log, compaction", r"rocksdb::\S*(DBImpl::(Write|Background|Flush)|Compaction|FlushJob|WriteBatch)|rocksdb_write"),
        ("RocksDB: the read", r"rocksdb"),
        WAITING,
        SENDING,
        RECEIVING,
        ("bincode", r"bincode|serde_core|serde::"),
        ("log: write and fdatasync", r"log::server::Writer|fdatasync|ext4|File.*write_and_sync"),
        ("storage: from the window to a batch, and forgetting it there", r"flushing|window::flush"),
        ("storage: pulling, applying to the window", r"storage::pulling|window::apply|storage::machine"),
        ("storage: the read, its window", r"storage::"),
        ("resolver, conflict set", r"resolver"),
        ("proxy, sequencer", r"coordinator"),
        ("log: the rest", r"ferrisdb_server::log|log::"),
        ("tarpc", r"tarpc"),
        ("tokio's tasks and timers", r"tokio|mio"),
        ("the rest", r""),
    ],
    "client": [
        WAITING,
        SENDING,
        RECEIVING,
        ("bincode", r"bincode|serde_core|serde::"),
        ("tarpc", r"tarpc"),
        ("batches and connections", r"ferrisdb_client::(batch|cluster|connections|hedge|locations)"),
        ("transaction", r"ferrisdb_client"),
        ("the benchmark itself", r"ferrisdb_bench"),
        ("tokio's tasks and timers", r"tokio|mio"),
        ("the rest", r""),
    ],
}


def stacks(path):
    stack = []
    with open(path, errors="replace") as lines:
        for text in lines:
            if not text.strip():
                if stack:
                    yield "\n".join(stack)
                stack = []
            elif text[0].isspace():
                stack.append(text.strip().split(" ", 1)[-1])
    if stack:
        yield "\n".join(stack)


def shares(path, side):
    parts = [(name, re.compile(expression)) for name, expression in PARTS[side]]
    found = collections.Counter()
    for stack in stacks(path):
        found[next(name for name, expression in parts if expression.search(stack))] += 1
    return found


def cell(found, name, micros):
    share = found[name] / max(1, found.total())
    return f"{share:.0%} = {share * micros:.2g} µs" if found[name] else "-"


def main():
    folder = pathlib.Path(sys.argv[1])
    lines = [json.loads(text) for text in (folder / "lines.txt").read_text().splitlines() if text.startswith("{")]
    text = []
    for run in lines:
        name, rows = run["workload"], 1
        if name == "scan":
            rows = run["rows_read_per_second"] / run["operations_per_second"]
        found = {side: shares(folder / f"{name}.{side}", side) for side in PARTS}
        micros = {side: (run[f"{side}_cpu_us_per_operation"] or 0) / rows for side in PARTS}
        samples = " and ".join(f"{found[side].total():,}" for side in PARTS)
        of = "rows" if rows > 1 else "operations"
        text.append(f"`{name}`, {run['operations_per_second'] * rows:,.0f} {of} a second; {samples} samples:")
        text += ["", f"Part | Server, {micros['server']:.2g} µs | Client, {micros['client']:.2g} µs", "---|---|---"]
        titles = dict.fromkeys(title for side in PARTS for title, _ in PARTS[side])
        titles["the rest"] = titles.pop("the rest", None)
        for title in titles:
            if any(found[side][title] for side in PARTS):
                text.append(f"{title} | {cell(found['server'], title, micros['server'])} | {cell(found['client'], title, micros['client'])}")
        text.append("")
    (folder / "profile.md").write_text("\n".join(text))


main()
