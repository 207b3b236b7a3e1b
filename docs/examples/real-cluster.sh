#!/usr/bin/env bash
# A cluster of eight processes on this machine, with real data.
#
#   1. starts one controller, one coordinator, three logs and three storage servers
#   2. imports Debian's Unicode character table: about 35,000 records
#   3. eight concurrent workers tally the records by category, each step a transaction that reads and
#      writes the counters which all of them share
#   4. compares the counters with a count of the same file by awk, and the export with the import
#
# Usage: docs/examples/real-cluster.sh [FOLDER]     (default: a temporary folder, removed at the end)
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/setup
# shellcheck source=scripts/env
. scripts/env

say() { printf '\n== %s\n' "$*"; }

keep="${1:-}"
folder="${keep:-$(mktemp -d)}"
mkdir -p "$folder"
bin="$CARGO_TARGET_DIR/release"
port="${FERRISDB_EXAMPLE_PORT:-4600}"
controllers="127.0.0.1:$port"
pids=()

stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ -n "$keep" ] || rm -rf "$folder"
}
trap stop EXIT

say "building"
cargo build --release -p ferrisdb-server -p ferrisdb-client --features ferrisdb-client/cli --bins --examples

say "fetching Debian's unicode-data"
table=/usr/share/unicode/UnicodeData.txt
if [ ! -f "$table" ]; then
    (cd "$folder" && apt-get download -q unicode-data && dpkg-deb -x unicode-data_*.deb unicode-data)
    table="$folder/unicode-data/usr/share/unicode/UnicodeData.txt"
fi
# The key is the code point, the value the rest of the line: name;category;...
awk -F';' '{ key = $1; sub(/^[^;]*;/, ""); printf "unicode/%s\t%s\n", key, $0 }' "$table" >"$folder/import.tsv"
wc -l <"$folder/import.tsv" | xargs printf '%s records\n'

say "starting eight processes"
start() { # role, number, further flags
    local role="$1" number="$2"
    shift 2
    "$bin/ferrisdb-$role" "$@" >"$folder/$role-$number.out" 2>"$folder/$role-$number.log" &
    pids+=($!)
    for _ in $(seq 100); do
        [ ! -s "$folder/$role-$number.out" ] || { cat "$folder/$role-$number.out"; return; }
        sleep 0.1
    done
    echo "ferrisdb-$role did not start:" >&2
    cat "$folder/$role-$number.log" >&2
    exit 1
}
start controller 0 --listen "$controllers" --data "$folder/controller" --logs 3 --storage-servers 3 \
    --shard-boundaries 'unicode/4,unicode/A'
start coordinator 0 --listen 127.0.0.1:0 --controllers "$controllers"
for number in 0 1 2; do
    start log "$number" --listen 127.0.0.1:0 --controllers "$controllers" --data "$folder/log-$number"
    start storage "$number" --listen 127.0.0.1:0 --controllers "$controllers" --data "$folder/storage-$number"
done
cli() { "$bin/ferrisdb-cli" --controllers "$controllers" "$@"; }

say "importing"
cli import "$folder/import.tsv" --format tsv
cli status

say "tallying the records by category, eight workers at once"
"$bin/examples/unicode_tally" "$controllers" 8

say "comparing with an independent count"
awk -F';' '{ count[$3]++ } END { for (category in count) print category, count[category] }' "$table" |
    LC_ALL=C sort >"$folder/expected"
cli export - --prefix tally/ --format tsv | sed 's|^tally/||; s|\t| |' | LC_ALL=C sort >"$folder/tallied"
diff "$folder/expected" "$folder/tallied"
wc -l <"$folder/expected" | xargs printf '%s categories agree\n'

say "comparing the export with the import"
cli export "$folder/export.tsv" --prefix unicode/ --format tsv
LC_ALL=C sort "$folder/import.tsv" | cmp - "$folder/export.tsv"
echo "every record came back as it went in"

say "all is well"
