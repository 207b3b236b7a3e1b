#!/usr/bin/env bash
# Redis with an append-only file that is synced before each answer (appendfsync always).
. "$(dirname "$0")/common.sh"
need redis-server
echo "version redis $(redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/')"
port="$(free_port)"
redis-server --bind 127.0.0.1 --port "$port" --dir "$data" --save '' --appendonly yes --appendfsync always \
    --auto-aof-rewrite-percentage 0 --daemonize no --loglevel warning >"$data/log" 2>&1 &
server=$!
wait_for "$port"
run() {
    load redis --addr "127.0.0.1:$port" --pid "$server" --secs "$SECS" --keys "$KEYS" "$@"
}
run --workload load --accounts "$KEYS"
run --workload get --label read --clients 1
run --workload get --label read --clients 64
run --workload set --label update --clients 1
run --workload set --label update --clients 64
run --workload transfer --accounts "$KEYS" --clients 1
run --workload transfer --accounts "$KEYS" --clients 64
run --workload transfer --label transfer-100 --accounts 100 --clients 64
run --workload check --accounts "$KEYS"
