#!/usr/bin/env bash
# etcd, one member, as it comes: every commit is synced. ETCD names a binary; otherwise it is the one that `install` has fetched.
. "$(dirname "$0")/common.sh"
etcd="${ETCD:-$etcd_fetched}"
if [ ! -x "$(command -v "$etcd")" ] && [ -z "${ETCD:-}" ]; then
    echo "etcd $etcd_version was not fetched: Debian's is measured, whose reads after many writes may be slow" >&2
    etcd=etcd
fi
need "$etcd"
echo "version etcd $("$etcd" --version | sed -n 's/^etcd Version: //p')"
port="$(free_port)" peer_port="$(free_port)"
"$etcd" --name one --data-dir "$data/etcd" --log-level error --quota-backend-bytes 8589934592 \
    --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
    --initial-cluster "one=http://127.0.0.1:$peer_port" >"$data/log" 2>&1 &
server=$!
wait_for "$port"
sleep 1
run() {
    load etcd --addr "127.0.0.1:$port" --pid "$server" --secs "$SECS" --keys "$KEYS" "$@"
}
run --workload load --accounts "$KEYS"
run --workload get --label read --clients 1
run --workload get --label read --clients 64
run --workload put --label update --clients 1
run --workload put --label update --clients 64
run --workload transfer --accounts "$KEYS" --clients 1
run --workload transfer --accounts "$KEYS" --clients 64
run --workload transfer --label transfer-100 --accounts 100 --clients 64
run --workload check --accounts "$KEYS"
