# shellcheck shell=bash
# Sourced by the scripts of the systems: places, and how a server is started and stopped.
#
# Servers listen on 127.0.0.1 only; their data lies in a fresh folder below COMPARE_DATA, which is removed at the end; only
# what was started here is stopped, by its process id.
set -euo pipefail
compare_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SECS="${SECS:-5}"                                # measured seconds of each line
KEYS="${KEYS:-100000}"                           # rows, and accounts
COMPARE_DATA="${COMPARE_DATA:-${TMPDIR:-/tmp}}"  # on the disk that is to be measured
# shellcheck source=../../scripts/env
. "$compare_dir/../../scripts/env"
binaries="$CARGO_TARGET_DIR/release"
peerload="$CARGO_TARGET_DIR/peerload/release/peerload"
# shellcheck source=etcd_version.sh
. "$compare_dir/etcd_version.sh"

data="$(mktemp -d "$COMPARE_DATA/compare-$(basename "$0" .sh).XXXXXX")"
chmod 755 "$data"
server=
clean_up() {
    [ -z "$server" ] || stop "$server"
    rm -rf "$data"
}
# Asks processes to end; kills those that have not after ten seconds.
stop() {
    kill -TERM "$@" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$@" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$@" 2>/dev/null || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM

need() {
    [ -x "$(command -v "$1")" ] || {
        echo "$1 is missing: run $compare_dir/install" >&2
        exit 1
    }
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits until something listens on the port.
wait_for() {
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.1
    done
    echo "nothing answers on port $1" >&2
    return 1
}

# One load, bounded in time.
load() { timeout -k 5 $((SECS * 4 + 120)) "$peerload" "$@"; }
