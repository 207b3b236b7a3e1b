#!/usr/bin/env bash
# PostgreSQL as it comes (fsync and synchronous_commit on), with prepared statements of pgbench over loopback TCP; transfers
# are SERIALIZABLE and retried. Started by root it runs as the user postgres.
. "$(dirname "$0")/common.sh"
bin="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)"
need "$bin/postgres"
echo "version postgres $("$bin/postgres" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')"
as=()
if [ "$(id -u)" = 0 ]; then
    as=(runuser -u postgres --)
    chown postgres "$data"
fi
port="$(free_port)"
"${as[@]}" "$bin/initdb" -D "$data/db" -A trust -U bench --no-sync >"$data/initdb.log"
"${as[@]}" "$bin/postgres" -D "$data/db" -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$data" \
    -c fsync=on -c synchronous_commit=on -c log_min_messages=fatal >"$data/log" 2>&1 &
for _ in $(seq 200); do
    [ -s "$data/db/postmaster.pid" ] && "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && break
    sleep 0.1
done
# The server's own process, not the one that has changed the user.
server="$(head -1 "$data/db/postmaster.pid")"
sql() { "$bin/psql" -q -X -h 127.0.0.1 -p "$port" -U bench -d postgres -v ON_ERROR_STOP=1 "$@"; }

# Keys of 16 bytes, values of 100 that begin with a balance.
for table in rows accounts; do
    sql -c "create table $table (key bytea primary key, value bytea not null)" \
        -c "insert into $table select decode(lpad(to_hex(i), 32, '0'), 'hex'),
              int8send(1000) || decode(repeat(md5(i::text), 5), 'hex') || decode(substr(md5(i::text), 1, 24), 'hex')
            from generate_series(0, $KEYS - 1) i" \
        -c "vacuum analyze $table"
done
sql -c checkpoint

key() { echo "decode(lpad(to_hex(:$1::int), 32, '0'), 'hex')"; }
balance="('x' || encode(substring(value for 8), 'hex'))::bit(64)::bigint"
cat >"$data/read.sql" <<SQL
\set a random(0, :n - 1)
SELECT value FROM rows WHERE key = $(key a);
SQL
cat >"$data/update.sql" <<SQL
\set a random(0, :n - 1)
\set v random(1, 1000000000)
UPDATE rows SET value = overlay(value placing int8send(:v) from 1 for 8) WHERE key = $(key a);
SQL
cat >"$data/transfer.sql" <<SQL
\set a random(0, :n - 1)
\set b (:a + random(1, :n - 1)) % :n
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT $balance AS payer FROM accounts WHERE key = $(key a) \gset
SELECT $balance AS payee FROM accounts WHERE key = $(key b) \gset
\set payer_after :payer - 1
\set payee_after :payee + 1
UPDATE accounts SET value = overlay(value placing int8send(:payer_after) from 1 for 8) WHERE key = $(key a);
UPDATE accounts SET value = overlay(value placing int8send(:payee_after) from 1 for 8) WHERE key = $(key b);
COMMIT;
SQL
chmod a+r "$data"/*.sql

run() { # workload label clients rows
    rm -f "$data"/transactions*
    timeout -k 5 $((SECS * 4 + 120)) python3 "$compare_dir/pgbench.py" "$server" "$2" "$3" "$SECS" \
        "$bin/pgbench" -n -M prepared -h 127.0.0.1 -p "$port" -U bench -c "$3" -j "$(($3 > 1 ? 2 : 1))" -T "$((SECS + 1))" \
        -D n="$4" --max-tries=1000 -f "$data/$1.sql" -l --log-prefix="$data/transactions" postgres
}
for clients in 1 64; do
    run read read "$clients" "$KEYS"
    run update update "$clients" "$KEYS"
    run transfer transfer "$clients" "$KEYS"
done
run transfer transfer-100 64 100
sum="$(sql -A -t -c "select sum($balance) from accounts")"
[ "$sum" = $((KEYS * 1000)) ] || {
    echo "the accounts hold $sum" >&2
    exit 1
}
