"""Writes tests/data/tuple_vectors.txt: tuples and how FoundationDB's Python package packs them.

    python3 tuple_vectors.py [--package FOLDER] [--seed N] [--count N] > ../data/tuple_vectors.txt

One JSON list per line: the packed bytes in hexadecimal, the tuple, and for tuples with an incomplete versionstamp
the offset that the package appends. Elements:

    null true false "text"      themselves
    {"b": hex}                  bytes
    {"i": [-]hex}               integer, its magnitude in hexadecimal
    {"f": hex} {"d": hex}       the bits of a float of 32 or 64 bits, big-endian
    {"u": hex} {"v": hex}       UUID, versionstamp
    [..]                        tuple
"""

import argparse
import json
import random
import struct
import uuid

import reference

# The package alone writes these in the form for more than eight bytes; see tests/tuple_vectors.rs.
ONLY_HERE = (2**64 - 1, -(2**64 - 1))

CHARACTERS = ["a", "b", "\x00", "\x01", "\x7f", "é", "ß", "中", "\uffff", "🦀", "\U0010ffff", "z", " "]


class Maker:
    def __init__(self, fdb, seed):
        self.tuple = fdb.tuple
        self.random = random.Random(seed)

    def integer(self):
        r = self.random
        kind = r.randrange(8)
        if kind == 0:
            value = r.randrange(-300, 300)
        elif kind == 1:
            # Where the number of bytes changes.
            bits = 8 * r.randrange(1, 20)
            value = (1 << bits) + r.randrange(-2, 3)
        elif kind == 2:
            value = r.getrandbits(8 * r.choice([17, 17, 18, 20, 20, 31, 32, 33, 60, 255]))
        elif kind == 3:
            value = r.choice([2**31, 2**63, 2**127, 2**128, 2**2040 - 1]) + r.choice([-1, 0])
        else:
            value = r.getrandbits(r.randrange(1, 140))
        if value.bit_length() > 2040:
            value >>= 1
        if r.randrange(2):
            value = -value
        return 0 if value in ONLY_HERE else value

    def bits_of_float(self, bits_count, exponent_bits):
        r = self.random
        sign = r.randrange(2) << (bits_count - 1)
        fraction_bits = bits_count - 1 - exponent_bits
        exponent_max = (1 << exponent_bits) - 1
        kind = r.randrange(6)
        if kind == 0:
            # Zero and infinity, of both signs.
            return sign | (r.choice([0, exponent_max]) << fraction_bits)
        if kind == 1:
            # A NaN; quiet, because the interpreter's conversions make it so.
            return sign | (exponent_max << fraction_bits) | (1 << (fraction_bits - 1)) | r.getrandbits(16) << 7
        if kind == 2:
            # Too small to be normalized.
            return sign | r.getrandbits(fraction_bits)
        return sign | r.getrandbits(bits_count - 1)

    def text(self):
        r = self.random
        return "".join(r.choice(CHARACTERS) for _ in range(r.choice([0, 1, 2, 3, 5, 9])))

    def bytes(self):
        r = self.random
        if r.randrange(4) == 0:
            return bytes(r.choice([0, 0xFF, 1]) for _ in range(r.randrange(6)))
        return r.randbytes(r.choice([0, 1, 2, 3, 7, 16]))

    def versionstamp(self):
        r = self.random
        transaction = r.choice([b"\x00" * 10, r.randbytes(10), b"\xff" * 9 + b"\xfe"])
        return self.tuple.Versionstamp(transaction, r.choice([0, 1, 0xFFFF, r.getrandbits(16)]))

    def element(self, depth):
        r = self.random
        kind = r.randrange(15)
        if kind == 0:
            return None
        if kind in (1, 2):
            return self.bytes()
        if kind in (3, 4):
            return self.text()
        if kind in (5, 6, 7):
            return self.integer()
        if kind == 8:
            bits = struct.pack(">I", self.bits_of_float(32, 8))
            return self.tuple.SingleFloat(struct.unpack(">f", bits)[0])
        if kind == 9:
            return struct.unpack(">d", struct.pack(">Q", self.bits_of_float(64, 11)))[0]
        if kind == 10:
            return bool(r.randrange(2))
        if kind == 11:
            return uuid.UUID(bytes=r.randbytes(16))
        if kind == 12:
            return self.versionstamp()
        return self.tuple_of(depth + 1) if depth < 5 else None

    def tuple_of(self, depth=0):
        r = self.random
        return tuple(self.element(depth) for _ in range(r.choice([0, 1, 1, 2, 3, 4])))

    def place_incomplete(self, value):
        """The tuple with one incomplete versionstamp at a random place."""
        r = self.random
        stamp = self.tuple.Versionstamp(user_version=r.getrandbits(16))
        elements = list(value)
        nested = [index for index, element in enumerate(elements) if isinstance(element, tuple)]
        if nested and r.randrange(2):
            index = r.choice(nested)
            elements[index] = self.place_incomplete(elements[index])
        else:
            elements.insert(r.randrange(len(elements) + 1), stamp)
        return tuple(elements)


def describe(fdb, value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, int):
        return {"i": f"{value:x}"}
    if isinstance(value, fdb.tuple.SingleFloat):
        return {"f": struct.pack(">f", value.value).hex()}
    if isinstance(value, float):
        return {"d": struct.pack(">d", value).hex()}
    if isinstance(value, uuid.UUID):
        return {"u": value.bytes.hex()}
    if isinstance(value, fdb.tuple.Versionstamp):
        return {"v": value.to_bytes().hex()}
    return [describe(fdb, element) for element in value]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", help="a folder with the package, instead of installing it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2700)
    arguments = parser.parse_args()
    fdb = reference.load(arguments.package)
    maker = Maker(fdb, arguments.seed)
    seen = set()
    while len(seen) < arguments.count:
        value = maker.tuple_of()
        is_stamped = maker.random.randrange(20) == 0
        if is_stamped:
            value = maker.place_incomplete(value)
            packed = fdb.tuple.pack_with_versionstamp(value)
            packed, offset = packed[:-4], struct.unpack("<I", packed[-4:])[0]
        else:
            packed = fdb.tuple.pack(value)
        if packed in seen:
            continue
        seen.add(packed)
        described = describe(fdb, value)
        assert describe(fdb, fdb.tuple.unpack(packed)) == described, (value, packed)
        line = [packed.hex(), described] + ([offset] if is_stamped else [])
        print(json.dumps(line, separators=(",", ":")))


main()
