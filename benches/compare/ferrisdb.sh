#!/usr/bin/env bash
# FerrisDB: ferrisdb-server, all roles in one process, as it comes. SERVER_ARGUMENTS are passed on to it.
. "$(dirname "$0")/common.sh"
need "$binaries/ferrisdb-bench"
read -ra arguments <<<"${SERVER_ARGUMENTS:-}"
measure() { timeout -k 5 600 "$binaries/ferrisdb-bench" --json --quiet --duration "$SECS" --keys "$KEYS" "$@"; }
# The warm-up is longer than the window of versions (five seconds): before that nothing reaches the engine.
bench() { measure --start --data "$data" --warm-up "${WARM_UP:-6}" "$@" -- "${arguments[@]}"; }
echo "version ferrisdb $("$binaries/ferrisdb-server" --version | cut -d' ' -f2)"
bench --clients 1,64 --accounts "$KEYS" point-read blind-update transfer
bench --clients 64 ten-key-transaction ten-reads-together scan
bench --clients 64 --accounts 100 transfer
# The mixes of FoundationDB, as foundationdb.json has them.
bench --clients 100,400 point-read blind-update read-modify-write nine-reads-one-update
bench --clients 1 latency
# Inside the process that asks, as a library. One client needs one thread: more of them only wake each other.
measure --embedded "$data/embedded" --threads "${EMBEDDED_THREADS:-1}" --warm-up "${WARM_UP:-6}" --clients 1 \
    point-read latency
