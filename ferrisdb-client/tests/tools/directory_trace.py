"""Writes tests/data/directory_trace.txt: operations of FoundationDB's directory layer, and what they do to the rows.

    python3 directory_trace.py [--package FOLDER] [--seed N] [--count N] > ../data/directory_trace.txt

The layer of the Python package runs over a transaction in memory. One JSON object per line, in order:

    op, via, path, to, layer, prefix    what is asked for; `via` is the directory it is asked of, null for the layer
    draws                               the numbers that the allocator drew, counted from the beginning of its window
    result                              what came back, or {"error": message}; an error changes nothing
    rows                                the rows that are different then: key to value, null for cleared ones
"""

import argparse
import json
import random
import struct

import reference


class Present(bytes):
    def present(self):
        return True


class Absent:
    def present(self):
        return False

    def __eq__(self, other):
        return other is None

    __hash__ = None


def key_of(key):
    return key.as_foundationdb_key() if hasattr(key, "as_foundationdb_key") else bytes(key)


class Transaction:
    """The part of a transaction that the layer uses, over a dictionary."""

    def __init__(self, rows, successor):
        self.rows = dict(rows)
        self.snapshot = self
        self.options = self
        self.successor = successor

    def set_next_write_no_write_conflict_range(self):
        pass

    def add_write_conflict_key(self, key):
        pass

    def __getitem__(self, key):
        if isinstance(key, slice):
            return self.get_range(key.start, key.stop)
        value = self.rows.get(key_of(key))
        return Absent() if value is None else Present(value)

    def __setitem__(self, key, value):
        self.rows[key_of(key)] = bytes(value)

    def __delitem__(self, key):
        if isinstance(key, slice):
            for found, _ in self.get_range(key.start, key.stop):
                del self.rows[found]
        else:
            self.rows.pop(key_of(key), None)

    def add(self, key, delta):
        present = struct.unpack("<q", self.rows.get(key_of(key), bytes(8)))[0]
        self.rows[key_of(key)] = struct.pack("<q", present + struct.unpack("<q", delta)[0])

    def get_range(self, begin, end, limit=0, reverse=False):
        begin, end = key_of(begin), key_of(end)
        found = sorted((key, Present(value)) for key, value in self.rows.items() if begin <= key < end)
        if reverse:
            found.reverse()
        return found[:limit] if limit else found

    def get_range_startswith(self, prefix, limit=0):
        return self.get_range(prefix, self.successor(prefix), limit)

    def clear_range_startswith(self, prefix):
        del self[prefix : self.successor(prefix)]


class Draws:
    """Takes the place of the module `random`, and remembers."""

    def __init__(self, source):
        self.source = source
        self.drawn = []

    def randrange(self, start, stop):
        self.drawn.append(self.source.randrange(stop - start))
        return start + self.drawn[-1]


class Script:
    def __init__(self, fdb, seed):
        self.fdb = fdb
        self.random = random.Random(seed)
        self.draws = Draws(random.Random(seed + 1))
        fdb.directory_impl.random = self.draws
        self.layer = fdb.directory_impl.DirectoryLayer(allow_manual_prefixes=True)
        self.rows = {}
        # Where directories are, or were once.
        self.known = [()]

    def path(self, empty=0.05):
        r = self.random
        if r.random() < empty:
            return ()
        if r.random() < 0.5:
            return r.choice(self.known)
        if r.random() < 0.5:
            return r.choice(self.known) + (r.choice(["a", "b", "c"]),)
        names = ["a", "b", "c", "d", "é\x00", ""]
        # Mostly short, so that operations meet.
        return tuple(r.choice(names) for _ in range(r.choice([1, 1, 2, 2, 2, 3, 4])))

    def operation(self):
        r = self.random
        op = r.choice(
            ["create_or_open"] * 4
            + ["create"] * 6
            + ["open"] * 2
            + ["list"] * 2
            + ["exists"]
            + ["move"] * 4
            + ["move_to"] * 2
            + ["remove", "remove_if_exists"]
            + ["write"] * 3
        )
        via = r.choice(self.known) if r.randrange(3) == 0 else None
        if op in ("move_to", "write") and via is None:
            via = r.choice(self.known)
        may_be_empty = 0.5 if via is not None and op in ("list", "exists", "remove", "remove_if_exists") else 0.05
        step = {"op": op, "via": via, "path": self.path(may_be_empty), "to": self.path()}
        if op == "move_to" and r.randrange(2):
            # Next to where it is, so inside of the same partition.
            step["to"] = via[:-1] + (r.choice("efgh"),)
        if op in ("create_or_open", "create", "open"):
            step["layer"] = r.choice([None] * 6 + [b"x", b"y", b"partition", b"partition"])
        if op == "create" and r.randrange(8) == 0:
            step["prefix"] = r.choice([b"", b"m", b"mn", b"n\x00", b"n", b"\xfe", b"\xfe\x01", b"\x15", b"o\xff"]) + (
                b"" if r.randrange(2) else r.randbytes(2)
            )
        return step

    def run(self, tr, step):
        target = self.layer
        if step["via"] is not None:
            target = self.layer.open(tr, step["via"])
        op, path = step["op"], step["path"]
        if op == "create":
            return self.opened(target.create(tr, path, step["layer"], step.get("prefix")))
        if op in ("create_or_open", "open"):
            return self.opened(getattr(target, op)(tr, path, step["layer"]))
        if op == "list":
            return list(target.list(tr, path))
        if op == "exists":
            return target.exists(tr, path)
        if op == "move":
            return self.opened(target.move(tr, path, step["to"]))
        if op == "move_to":
            return self.opened(target.move_to(tr, step["to"]))
        if op == "remove":
            target.remove(tr, path)
            return None
        if op == "remove_if_exists":
            return bool(target.remove_if_exists(tr, path))
        assert op == "write"
        tr[target.pack((step["to"], len(self.rows)))] = b"content"
        return target.pack((step["to"], len(self.rows))).hex()

    def opened(self, directory):
        layer = bytes(directory.get_layer() or b"")
        # The prefix, which a partition does not give away by itself.
        return {"path": list(directory.get_path()), "layer": layer.hex(), "prefix": bytes(directory.rawPrefix).hex()}

    def step(self):
        step = self.operation()
        tr = Transaction(self.rows, self.fdb.impl.strinc)
        self.draws.drawn = []
        try:
            result = self.run(tr, step)
        except Exception as error:  # The layer raises what is at hand, Exception itself included.
            result = {"error": str(error)}
            tr.rows = self.rows
        changed = {}
        for key in sorted(set(self.rows) | set(tr.rows)):
            if self.rows.get(key) != tr.rows.get(key):
                value = tr.rows.get(key)
                changed[key.hex()] = None if value is None else value.hex()
        self.rows = tr.rows
        if isinstance(result, dict) and "path" in result and len(result["path"]) < 6:
            self.known.append(tuple(result["path"]))
            self.known = self.known[-40:]
        line = {name: value.hex() if isinstance(value, bytes) else value for name, value in step.items()}
        line.update(draws=self.draws.drawn, result=result, rows=changed)
        return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", help="a folder with the package, instead of installing it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=900)
    arguments = parser.parse_args()
    script = Script(reference.load(arguments.package), arguments.seed)
    for _ in range(arguments.count):
        print(json.dumps(script.step(), separators=(",", ":")))


main()
