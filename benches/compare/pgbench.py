"""Runs pgbench once and prints a line as peerload does: pgbench.py SERVER_PID LABEL CLIENTS SECONDS COMMAND...

Percentiles come from pgbench's log of single transactions; what ended in its first second is left out as warm-up. The server's
CPU time is that of its process, of the living ones it has started, and of those it has waited for.
"""

import glob
import os
import re
import resource
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of_tree(root):
    parents, used = {}, {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = open(path).read()
        except OSError:
            continue
        pid = int(text[: text.index(" ")])
        fields = text[text.rindex(")") + 2 :].split()
        parents[pid] = int(fields[1])
        used[pid] = sum(map(int, fields[11:15])) / TICKS
    tree, added = {root}, True
    while added:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree, added = tree | more, bool(more)
    return sum(used.get(pid, 0) for pid in tree)


def machine_busy():
    fields = [int(field) / TICKS for field in open("/proc/stat").readline().split()[1:]]
    return sum(fields[place] for place in (0, 1, 2, 5, 6, 7))


def main():
    pid, label, clients, seconds, *command = sys.argv[1:]
    seconds = float(seconds)
    busy, server, began = machine_busy(), cpu_of_tree(int(pid)), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pgbench failed: {done.stderr[-500:]}")
    elapsed = time.monotonic() - began
    busy = machine_busy() - busy
    time.sleep(0.3)  # until the server has waited for its children that ended
    server = cpu_of_tree(int(pid)) - server
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    prefix = next(word.split("=", 1)[1] for word in command if word.startswith("--log-prefix="))
    ended = []
    for path in glob.glob(prefix + "*"):
        for line in open(path):
            # client, number, microseconds, script, seconds and microseconds of the end, retries
            fields = line.split()
            if fields[2].isdigit():
                ended.append((int(fields[4]) + int(fields[5]) / 1e6, int(fields[2])))
    last = max(end for end, _ in ended)
    latencies = sorted(latency for end, latency in ended if end > last - seconds)
    retries = re.search(r"total number of retries: (\d+)", done.stdout)
    at = lambda share: latencies[min(int(len(latencies) * share), len(latencies) - 1)]
    print(
        f"system=postgres workload={label} clients={clients} ops_s={len(latencies) / seconds:.0f}"
        f" p50_us={at(0.5)} p99_us={at(0.99)} p999_us={at(0.999)} retries={retries.group(1) if retries else 0}"
        f" cli_us={(own.ru_utime + own.ru_stime) * 1e6 / len(ended):.2f} srv_us={server * 1e6 / len(ended):.2f}"
        f" cores_busy={busy / elapsed:.2f}",
        flush=True,
    )


main()
