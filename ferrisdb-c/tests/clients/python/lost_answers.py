"""Answers to commits that get lost on the way: lost_answers.py SERVER_BINARY DATA_FOLDER.

    client ---- relay ---- server        the relay lets the request of an armed commit through, then cuts the connection

Starts a server behind a relay, and counts with each of the three ways in which a transaction gets an idempotency id.
"""

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

import fdb

binary, folder = sys.argv[1:]
armed = [False]
lost = [0]


def relay(client, port):
    server = socket.create_connection(("127.0.0.1", port))
    cut_at = None
    while cut_at is None or time.time() < cut_at:
        readable, _, _ = select.select([client, server], [], [], 0.02)
        try:
            if client in readable:
                data = client.recv(1 << 20)
                if not data:
                    break
                if armed[0] and b"the counter" in data and cut_at is None:
                    armed[0], cut_at = False, time.time() + 0.1
                    lost[0] += 1
                server.sendall(data)
            if server in readable:
                data = server.recv(1 << 20)
                if not data:
                    break
                if cut_at is None:
                    client.sendall(data)
        except OSError:
            break
    client.close()
    server.close()


listener = socket.create_server(("127.0.0.1", 0))
address = "127.0.0.1:%d" % listener.getsockname()[1]
# A free port: the server says its advertised address only, which is the relay's.
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
process = subprocess.Popen(
    [binary, "--listen", "127.0.0.1:%d" % port, "--advertise", address, "--data", os.path.join(folder, "data")],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
)
try:
    process.stdout.readline()

    def accept():
        while True:
            threading.Thread(target=relay, args=(listener.accept()[0], port), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    path = os.path.join(folder, "relayed.cluster")
    with open(path, "w") as file:
        file.write("test:1@" + address)
    fdb.api_version(730)

    TIMES = 4
    for mode in ("option in the body", "default of the database", "id of its own"):
        db = fdb.open(path)
        if mode == "default of the database":
            db.options.set_transaction_automatic_idempotency()
        del db[b"the counter"]

        def add_one(number):
            tr = db.create_transaction()
            while True:
                try:
                    if mode == "option in the body":
                        tr.options.set_automatic_idempotency()
                    elif mode == "id of its own":
                        # The binding has no name for it.
                        chosen = b"an id of its own: %03d" % number
                        tr._set_option(504, chosen, len(chosen))
                    tr.add(b"the counter", struct.pack("<q", 1))
                    tr.set_versionstamped_value(b"the stamp", bytes(14))
                    tr.commit().wait()
                    return tr.get_committed_version()
                except fdb.FDBError as error:
                    tr.on_error(error).wait()

        before = lost[0]
        for number in range(TIMES):
            armed[0] = True
            version = add_one(number)
            stamp = bytes(db[b"the stamp"])
            assert struct.unpack(">Q", stamp[:8])[0] == version, (stamp, version)
        assert lost[0] == before + TIMES, lost
        count = struct.unpack("<q", bytes(db[b"the counter"]))[0]
        assert count == TIMES, f"{mode}: counted to {count} in {TIMES}"
        print(f"ok {mode}")
finally:
    process.kill()
    process.wait()
