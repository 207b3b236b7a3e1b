#!/usr/bin/env bash
# FerrisDB: ferrisdb-server, all roles in one process, as it comes. SERVER_ARGUMENTS are passed on to it.
. "$(dirname "$0")/common.sh"
need "$binaries/ferrisdb-bench"
read -ra arguments <<<"${SERVER_ARGUMENTS:-}"
# The warm-up is longer than the window of versions (five seconds): before that nothing reaches the engine.
bench() {
    timeout -k 5 600 "$binaries/ferrisdb-bench" --json --quiet --start --data "$data" --duration "$SECS" --warm-up 6 \
        --keys "$KEYS" "$@" -- "${arguments[@]}"
}
bench --clients 1,64 --accounts "$KEYS" point-read blind-update transfer
bench --clients 64 ten-key-transaction ten-reads-together scan
bench --clients 64 --accounts 100 transfer
bench --clients 1 latency
