"""The unmodified package `foundationdb` on a FerrisDB cluster.

Run by ../../python.rs, with FDB_CLUSTER_FILE and LD_LIBRARY_PATH set: suite.py API_VERSION. Prints one line for each case.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

import fdb
import fdb.directory_impl
import fdb.locality
import fdb.tuple

VERSION = int(sys.argv[1])
fdb.api_version(VERSION)
db = fdb.open()
CASES = []


def case(function):
    CASES.append(function)
    return function


def expect_error(code, call):
    try:
        call()
    except fdb.FDBError as error:
        assert error.code == code, f"error {error.code} ({error.description}), not {code}"
        return error
    raise AssertionError(f"no error, {code} was expected")


def clear_all():
    db.clear_range(b"", b"\xff")


@case
def a_transaction_reads_what_it_wrote_and_others_after_the_commit():
    @fdb.transactional
    def write(tr):
        tr[b"hello"] = b"world"
        assert tr[b"hello"] == b"world"
        assert not tr[b"nothing"].present()

    write(db)
    assert db[b"hello"] == b"world"
    assert db.get(b"nothing") is None
    tr = db.create_transaction()
    assert tr.get_read_version().wait() > 5_000_000
    tr[b"hello"] = b"again"
    tr.commit().wait()
    assert tr.get_committed_version() > 0
    del db[b"hello"]
    assert db[b"hello"] is None


@case
def ranges_come_in_both_directions_whole_and_in_parts():
    @fdb.transactional
    def fill(tr):
        for i in range(1000):
            tr[b"r%04d" % i] = b"x" * 100

    fill(db)
    keys = [b"r%04d" % i for i in range(1000)]
    tr = db.create_transaction()
    modes = [fdb.StreamingMode.want_all, fdb.StreamingMode.iterator, fdb.StreamingMode.small]
    modes += [fdb.StreamingMode.medium, fdb.StreamingMode.large, fdb.StreamingMode.serial]
    for mode in modes:
        for reverse in (False, True):
            rows = tr.get_range(b"r", b"s", reverse=reverse, streaming_mode=mode)
            found = [kv.key for kv in rows]
            assert found == (keys[::-1] if reverse else keys), (mode, reverse)
    assert [kv.key for kv in tr.get_range(b"r", b"s", limit=3)] == keys[:3]
    exact = tr.get_range(b"r", b"s", limit=7, streaming_mode=fdb.StreamingMode.exact)
    assert len(list(exact)) == 7
    expect_error(2210, lambda: list(tr.get_range(b"r", b"s", streaming_mode=fdb.StreamingMode.exact)))
    assert [kv.key for kv in tr[b"r0998":]][:2] == keys[998:]
    assert [kv.key for kv in tr.get_range_startswith(b"r000")] == keys[:10]
    assert list(tr.get_range(b"s", b"r")) == []


@case
def selectors_count_keys_over_own_writes():
    for key in (b"s1", b"s3", b"s5"):
        db[key] = b""
    tr = db.create_transaction()
    tr[b"s4"] = b""
    del tr[b"s3"]
    select = fdb.KeySelector
    assert tr.get_key(select.first_greater_or_equal(b"s2")) == b"s4"
    assert tr.get_key(select.first_greater_than(b"s4")) == b"s5"
    assert tr.get_key(select.last_less_than(b"s4")) == b"s1"
    assert tr.get_key(select.last_less_or_equal(b"s3")) == b"s1"
    assert tr.get_key(select.first_greater_or_equal(b"s1") + 2) == b"s5"
    assert tr.get_key(select.first_greater_than(b"\xfe") + 100) == b"\xff"
    assert tr.get_key(select.last_less_than(b"") - 100) == b""
    assert [kv.key for kv in tr.get_range(select.first_greater_than(b"s1"), select.last_less_than(b"s5") + 1)] == [b"s4"]


@case
def atomic_operations_compute_in_the_database():
    def number(n):
        return struct.pack("<Q", n)

    db.add(b"n", number(5))
    db.add(b"n", number(7))
    assert db[b"n"] == number(12)
    db.bit_and(b"n", number(4))
    db.bit_or(b"n", number(3))
    db.bit_xor(b"n", number(1))
    assert db[b"n"] == number(6)
    db.max(b"n", number(9))
    db.min(b"n", number(8))
    assert db[b"n"] == number(8)
    db.compare_and_clear(b"n", number(8))
    assert db[b"n"] is None
    tr = db.create_transaction()
    tr.append_if_fits(b"a", b"one")
    tr.append_if_fits(b"a", b"two")
    tr.byte_max(b"b", b"m")
    tr.byte_min(b"b", b"k")
    assert tr[b"a"] == b"onetwo" and tr[b"b"] == b"k"
    tr.commit().wait()
    assert db[b"a"] == b"onetwo" and db[b"b"] == b"k"


@case
def versionstamps_order_keys_and_values():
    stamps = []
    for i in range(3):
        tr = db.create_transaction()
        item = fdb.tuple.pack_with_versionstamp(("queue", fdb.tuple.Versionstamp(user_version=i)))
        tr.set_versionstamped_key(item, b"item %d" % i)
        tr.set_versionstamped_value(b"last", b"\x00" * 10 + struct.pack("<I", 0))
        stamp = tr.get_versionstamp()
        tr.commit().wait()
        stamps.append(stamp.wait().value if hasattr(stamp.wait(), "value") else stamp.wait())
    assert stamps == sorted(set(stamps)) and all(len(stamp) == 10 for stamp in stamps)
    rows = list(db.get_range_startswith(fdb.tuple.pack(("queue",))))
    assert [row.value for row in rows] == [b"item 0", b"item 1", b"item 2"]
    found = [fdb.tuple.unpack(row.key)[1].tr_version for row in rows]
    assert found == stamps
    assert db[b"last"] == stamps[-1]
    # What has a stamp cannot be read before the commit, and a transaction that has tried does not commit.
    tr = db.create_transaction()
    tr.set_versionstamped_value(b"last", b"\x00" * 10 + struct.pack("<I", 0))
    expect_error(1036, lambda: tr[b"last"].present())
    expect_error(1036, lambda: tr.commit().wait())
    assert db[b"last"] == stamps[-1]
    tr = db.create_transaction()
    tr.set_versionstamped_key(b"too short", b"")
    expect_error(2000, lambda: tr.commit().wait())
    tr = db.create_transaction()
    stamp = tr.get_versionstamp()
    tr.commit().wait()
    expect_error(2021, lambda: stamp.wait())
    # Whoever hears of the commit can read the versionstamp, and does not wait for it.
    for i in range(50):
        tr = db.create_transaction()
        tr[b"last"] = b"%d" % i
        stamp, commit, ready = tr.get_versionstamp(), tr.commit(), []
        called = threading.Event()
        commit.on_ready(lambda _: (ready.append(stamp.is_ready()), called.set()))
        called.wait()
        assert ready == [True], i


@case
def conflicts_are_found_and_retried():
    db[b"c"] = b"0"
    one, two = db.create_transaction(), db.create_transaction()
    one[b"c"].present()
    two[b"c"].present()
    one[b"c"] = b"1"
    two[b"c"] = b"2"
    one.options.set_report_conflicting_keys()
    two.options.set_report_conflicting_keys()
    one.commit().wait()
    error = expect_error(1020, lambda: two.commit().wait())
    assert fdb.predicates.retryable(error) if hasattr(fdb.predicates, "retryable") else True
    two.on_error(error).wait()
    two[b"c"] = b"2"
    two.commit().wait()
    assert db[b"c"] == b"2"

    # Snapshot reads do not conflict, unless a range is added by hand.
    for by_hand in (False, True):
        tr = db.create_transaction()
        tr.snapshot[b"c"].present()
        tr[b"other"] = b"1"
        if by_hand:
            tr.add_read_conflict_key(b"c")
        db[b"c"] = b"3"
        if by_hand:
            expect_error(1020, lambda: tr.commit().wait())
        else:
            tr.commit().wait()

    # A write that is to conflict with nobody.
    reader = db.create_transaction()
    reader[b"quiet"].present()
    reader[b"x"] = b""
    writer = db.create_transaction()
    writer.options.set_next_write_no_write_conflict_range()
    writer[b"quiet"] = b"1"
    writer.commit().wait()
    reader.commit().wait()


@case
def conflicting_keys_can_be_read_as_keys():
    tr = db.create_transaction()
    tr.options.set_report_conflicting_keys()
    list(tr.get_range(b"k0", b"k9"))
    tr[b"z"] = b""
    db[b"k5"] = b""
    expect_error(1020, lambda: tr.commit().wait())
    prefix = b"\xff\xff/transaction/conflicting_keys/"
    rows = [(kv.key[len(prefix):], kv.value) for kv in tr.get_range_startswith(prefix)]
    assert rows == [(b"k0", b"1"), (b"k9", b"0")], rows


@case
def watches_fire_on_changes_only():
    db[b"w"] = b"1"

    @fdb.transactional
    def watch(tr):
        return tr.watch(b"w")

    changed = watch(db)
    db[b"w"] = b"1"
    time.sleep(0.5)
    assert not changed.is_ready()
    db[b"w"] = b"2"
    changed.wait()
    tr = db.create_transaction()
    pending = tr.watch(b"w")
    tr.reset()
    expect_error(1025, pending.wait)
    watches = [watch(db) for _ in range(100)]
    watches[0].cancel()
    expect_error(1101, watches[0].wait)
    db.clear(b"w")
    for one in watches[1:]:
        one.wait()


@case
def watches_see_their_transaction():
    db[b"w"] = b"1"
    tr = db.create_transaction()
    tr.options.set_snapshot_ryw_disable()
    tr[b"w"] = b"2"
    quiet = tr.watch(b"w")
    tr.commit().wait()
    # The transaction itself, after the watch: at once.
    tr = db.create_transaction()
    own = tr.watch(b"w")
    own_again = tr.watch(b"w")
    tr[b"w"].wait()
    tr[b"w"] = b"3"
    own.wait()
    own_again.wait()
    # The read of a watch is one like any other.
    tr = db.create_transaction()
    refused = tr.watch(b"w")
    tr[b"other"] = b""
    tr[b"w"].wait()
    db[b"w"] = b"4"
    expect_error(1020, lambda: tr.commit().wait())
    expect_error(1020, refused.wait)
    quiet.wait()
    # A commit right behind it arms it.
    tr = db.create_transaction()
    armed = tr.watch(b"w")
    tr.commit().wait()
    db[b"w"] = b"5"
    armed.wait()
    # One that was cancelled does not count, from then on.
    db.options.set_max_watches(2)
    try:
        tr = db.create_transaction()
        for _ in range(50):
            one, two = tr.watch(b"w"), tr.watch(b"w")
            one.cancel()
            two.cancel()
        last = tr.watch(b"w")
        tr.commit().wait()
        db[b"w"] = b"6"
        last.wait()
    finally:
        db.options.set_max_watches(10_000)


@case
def stamped_keys_conflict_where_they_come_to_lie():
    tr = db.create_transaction()
    tr.set_versionstamped_key(b"\0" * 10 + struct.pack("<I", 0), b"nothing but the stamp")
    tr.commit().wait()

    def push(tr):
        tr.set_versionstamped_key(b"queue/" + b"\0" * 10 + struct.pack("<I", 6), b"v")

    db[b"queue/head"] = b"0"
    reader, tail, pusher = db.create_transaction(), db.create_transaction(), db.create_transaction()
    reader[b"queue/head"].wait()
    list(tail[b"queue/" : b"queue0"])
    push(pusher)
    pusher.commit().wait()
    reader[b"other"] = b"1"
    reader.commit().wait()
    tail[b"other"] = b"1"
    expect_error(1020, lambda: tail.commit().wait())
    # Those before it can be read, once the version is known.
    tr = db.create_transaction()
    tr.get_read_version().wait()
    push(tr)
    assert len(list(tr.get_range(b"queue/", b"queue0", limit=1))) == 1
    tr = db.create_transaction()
    push(tr)
    expect_error(1036, lambda: list(tr.get_range(b"queue/", b"queue0", limit=1)))


@case
def the_last_write_of_a_key_counts():
    tr = db.create_transaction()
    for i in range(200):
        tr[b"same"] = bytes([i]) * 100_000
    tr.commit().wait()
    assert bytes(db[b"same"]) == bytes([199]) * 100_000
    tr = db.create_transaction()
    for i in range(200):
        tr[b"s%d" % i] = b"x" * 100_000
        if i % 50 == 49:
            tr.clear_range(b"s", b"t")
    tr[b"x"] = b"1"
    tr.commit().wait()
    assert db[b"x"] == b"1" and db[b"s1"] is None


@case
def callbacks_are_called_once():
    called = []
    done = threading.Event()
    tr = db.create_transaction()
    value = tr[b"w"]

    def note(future):
        called.append(future)
        done.set()

    value.on_ready(note)
    assert done.wait(10)
    time.sleep(0.05)
    assert len(called) == 1
    value.on_ready(note)
    assert len(called) == 2, "at once, as it is ready"


@case
def limits_and_misuse_have_their_numbers():
    tr = db.create_transaction()
    tr[b"x" * 10_001] = b""
    expect_error(2102, lambda: tr.commit().wait())
    tr = db.create_transaction()
    tr[b"x"] = b"v" * 100_001
    expect_error(2103, lambda: tr.commit().wait())
    tr = db.create_transaction()
    tr[b"\xff/x"] = b""
    expect_error(2004, lambda: tr.commit().wait())
    expect_error(2004, lambda: db.create_transaction()[b"\xff/x"].present())
    tr = db.create_transaction()
    for i in range(110):
        tr[b"big%d" % i] = b"v" * 100_000
    expect_error(2101, lambda: tr.commit().wait())
    tr = db.create_transaction()
    tr.options.set_timeout(1)
    time.sleep(0.05)
    expect_error(1031, lambda: tr[b"x"].present())
    tr = db.create_transaction()
    tr.cancel()
    expect_error(1025, lambda: tr[b"x"].present())
    tr = db.create_transaction()
    tr.set_read_version(1)
    expect_error(1007, lambda: tr[b"x"].present())
    tr = db.create_transaction()
    tr.set_read_version(2**62)
    expect_error(1009, lambda: tr[b"x"].present())
    tr = db.create_transaction()
    tr[b"x"] = b"1"
    tr.commit().wait()
    if VERSION >= 700:
        expect_error(2017, lambda: tr[b"x"].present())
        tr.reset()
    assert tr[b"x"] == b"1"
    tr = db.create_transaction()
    tr.atomic_op = None
    assert not db.get(b"y" * 20_000)
    tr = db.create_transaction()
    tr.options.set_retry_limit(0)
    expect_error(1020, lambda: tr.on_error(fdb.FDBError(1020)).wait())
    tr = db.create_transaction()
    tr.options.set_size_limit(1)
    expect_error(2006, lambda: tr.commit().wait())
    tr = db.create_transaction()
    tr.options.set_size_limit(100)
    tr[b"large"] = b"v" * 200
    assert tr[b"large"] == b"v" * 200 and not tr[b"nothing"].present()
    expect_error(2101, lambda: tr.commit().wait())
    tr = db.create_transaction()
    assert list(tr.get_range(b"y", fdb.KeySelector.first_greater_than(b"\xff"), limit=1)) == []
    expect_error(2005, lambda: db.create_transaction().add_read_conflict_range(b"b", b"a"))


@case
def timeouts_and_retry_limits_of_the_database():
    db.options.set_transaction_retry_limit(3)
    tries = []

    @fdb.transactional
    def never(tr):
        tries.append(1)
        raise fdb.FDBError(1020)

    expect_error(1020, lambda: never(db))
    assert len(tries) == 4
    db.options.set_transaction_retry_limit(-1)


@case
def the_metadata_version_is_a_versionstamp():
    key = b"\xff/metadataVersion"
    before = db.get(key)

    @fdb.transactional
    def touch(tr):
        tr.set_versionstamped_value(key, b"\x00" * 14)

    touch(db)
    after = db.get(key)
    assert after != before and len(after) == 10
    tr = db.create_transaction()
    tr[key] = b"x"
    expect_error(2000, lambda: tr.commit().wait())


@case
def sizes_split_points_places():
    @fdb.transactional
    def fill(tr):
        for i in range(2_000):
            tr[b"size%05d" % i] = b"v" * 500

    fill(db)
    tr = db.create_transaction()
    assert tr.get_estimated_range_size_bytes(b"size", b"sizf").wait() > 500_000
    points = list(tr.get_range_split_points(b"size", b"sizf", 100_000).wait())
    assert points[0] == b"size" and points[-1] == b"sizf" and len(points) > 5
    addresses = list(fdb.locality.get_addresses_for_key(db, b"size").wait())
    assert addresses and b":" in addresses[0]
    boundaries = list(fdb.locality.get_boundary_keys(db, b"", b"\xff"))
    assert boundaries[0] == b"", boundaries
    assert tr.get_approximate_size().wait() == 0
    tr[b"k"] = b"v"
    assert tr.get_approximate_size().wait() > 1


@case
def tuples_and_subspaces():
    values = (None, b"\x00bytes", "unicode \u2603", (1, ("nested", None)), -(2**70), 0, 255, 2**80)
    values += (1.5, fdb.tuple.SingleFloat(-2.5), True, False, uuid.UUID(int=7))
    space = fdb.Subspace(("layer",))
    db[space.pack(values)] = b"here"
    [row] = list(db[space.range()])
    assert space.unpack(row.key) == values
    inner = space["inner"]
    db[inner[3]] = b"3"
    assert db[fdb.tuple.pack(("layer", "inner", 3))] == b"3"


@case
def directories():
    root = fdb.directory.create_or_open(db, ("app",), layer=b"test")
    users = root.create(db, "users")
    db[users.pack((1,))] = b"Ada"
    assert fdb.directory.list(db, ("app",)) == ["users"]
    moved = users.move_to(db, ("app", "people"))
    assert db[moved.pack((1,))] == b"Ada"
    partition = fdb.directory.create_or_open(db, ("part",), layer=b"partition")
    inside = partition.create_or_open(db, "inside")
    db[inside.pack(("x",))] = b"y"
    prefixes = {fdb.directory.create_or_open(db, ("many", str(i))).key() for i in range(50)}
    assert len(prefixes) == 50
    assert fdb.directory.remove(db, ("app",))
    assert not fdb.directory.exists(db, ("app",))
    assert db[moved.pack((1,))] is None
    try:
        fdb.directory.open(db, ("app",), layer=b"other")
        raise AssertionError("it is gone")
    except ValueError:
        pass


@case
def counters_from_many_threads():
    @fdb.transactional
    def increment(tr):
        count = tr[b"counter"]
        tr[b"counter"] = b"%d" % (int(bytes(count)) + 1 if count.present() else 1)

    def run():
        for _ in range(25):
            increment(db)

    threads = [threading.Thread(target=run) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert db[b"counter"] == b"200"


@case
def counters_from_many_processes():
    program = (
        "import fdb, struct, sys; fdb.api_version(%d); db = fdb.open()\n"
        "for _ in range(50): db.add(b'processes', struct.pack('<Q', 1))" % VERSION
    )
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert db[b"processes"] == struct.pack("<Q", 200)


@case
def a_program_forks_before_it_uses_the_network():
    program = (
        "import os, sys, fdb; fdb.api_version(%d)\n"
        "child = os.fork()\n"
        "db = fdb.open(); db[b'forked%%d' %% (child == 0)] = b'1'\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)" % VERSION
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
    assert db[b"forked0"] == b"1" and db[b"forked1"] == b"1"


@case
def a_child_forked_later_is_told_that_it_has_no_network():
    program = (
        "import fdb, os; fdb.api_version(%d)\n"
        "db = fdb.open(); db[b'x']; pending = db.create_transaction().watch(b'x')\n"
        "child = os.fork()\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    db[b'forked'] = b'parent'\n"
        "else:\n"
        "    codes = []\n"
        "    for use in (lambda: db[b'x'], lambda: db.create_transaction().commit().wait(), pending.wait):\n"
        "        try: use(); codes.append(0)\n"
        "        except fdb.FDBError as error: codes.append(error.code)\n"
        "    os._exit(codes != [2008] * 3)" % VERSION
    )
    began = time.time()
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
    assert time.time() - began < 10
    assert db[b"forked"] == b"parent"


@case
def a_timeout_set_late_ends_what_waits():
    # Somebody who never says anything.
    silent = socket.create_server(("127.0.0.1", 0))
    path = os.path.join(os.path.dirname(os.environ["FDB_CLUSTER_FILE"]), "silent.cluster")
    with open(path, "w") as file:
        file.write("silent:1@127.0.0.1:%d" % silent.getsockname()[1])
    nobody = fdb.open(path)

    def commit(tr):
        tr[b"x"] = b""
        return tr.commit()

    begins = [
        lambda tr: tr.get(b"x"),
        lambda tr: tr.get_read_version(),
        lambda tr: tr.watch(b"x"),
        lambda tr: tr.get(b"\xff\xff/cluster_id"),
        commit,
    ]
    for begin in begins:
        tr = nobody.create_transaction()
        waits = begin(tr)
        assert not waits.is_ready()
        tr.options.set_timeout(20)
        expect_error(1031, waits.wait)


@case
def a_program_ends_at_once_with_work_pending():
    program = (
        "import fdb; fdb.api_version(%d)\n"
        "db = fdb.open(); tr = db.create_transaction(); tr[b'x'].present(); tr.watch(b'x')\n"
        "watch = fdb.transactional(lambda tr: tr.watch(b'x'))(db)\n"
        "nowhere = fdb.open(); pending = db.create_transaction().get(b'never asked for')" % VERSION
    )
    began = time.time()
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
    assert time.time() - began < 20


@case
def what_a_wrong_cluster_file_says():
    program = (
        "import fdb, sys; fdb.api_version(%d)\n"
        "db = fdb.open(sys.argv[1])\n"
        "try: db[b'x']; code = 0\n"
        "except fdb.FDBError as error: code = error.code\n"
        "print(code)" % VERSION
    )

    def code_of(path):
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, timeout=60)
        return int(done.stdout)

    assert code_of("/nowhere/fdb.cluster") == 1515
    wrong = os.path.join(os.path.dirname(os.environ["FDB_CLUSTER_FILE"]), "wrong.cluster")
    with open(wrong, "w") as file:
        file.write("nonsense")
    assert code_of(wrong) == 2104


@case
def special_keys():
    tr = db.create_transaction()
    status = tr[b"\xff\xff/status/json"]
    assert b'"database_available":true' in bytes(status), bytes(status)
    assert tr[b"\xff\xff/connection_string"].present()
    tr[b"a"].present()
    prefix = b"\xff\xff/transaction/read_conflict_range/"
    assert len(list(tr.get_range_startswith(prefix))) == 2
    assert len(list(tr.get_range(b"\xff\xff/tracing/", b"\xff\xff/tracing0"))) == 2
    assert len(list(tr.get_range(b"\xff\xff/transaction/", b"\xff\xff/transaction0"))) == 2
    expect_error(2113, lambda: tr[b"\xff\xff/no such thing"].present())
    tr[b"\xff\xff/x"] = b""
    expect_error(2114, lambda: tr.commit().wait())
    if hasattr(db, "get_client_status"):
        assert b'"Healthy":true' in bytes(db.get_client_status().wait())


def main():
    clear_all()
    for function in CASES:
        began = time.time()
        function()
        print(f"ok {function.__name__} ({time.time() - began:.2f} s)", flush=True)
    print(f"{len(CASES)} cases passed, foundationdb {fdb.__version__ if hasattr(fdb, '__version__') else ''} API {VERSION}")


main()
