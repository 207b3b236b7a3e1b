"""FoundationDB's Python package as a reference: its tuple and directory modules, without its C library.

The package is installed by pip into a folder (not into the interpreter). Its modules `tuple` and `directory_impl`
are plain Python but import `fdb.impl`, which loads the C library; a small module takes its place.
"""

import importlib
import pathlib
import subprocess
import sys
import tempfile
import types

PACKAGE = "foundationdb==7.3.63"


class Value:
    """What `fdb.impl.Value` is asked for: to be a class that nothing here is an instance of."""


def _successor_of_prefix(prefix):
    kept = prefix.rstrip(b"\xff")
    if not kept:
        raise ValueError("no key sorts after all keys with this prefix")
    return kept[:-1] + bytes([kept[-1] + 1])


def load(folder=None):
    """Returns the package `fdb` with the modules `tuple` and `directory_impl` loaded.

    `folder` holds an installed or unpacked package; without one, it is fetched into a temporary folder.
    """
    if folder is None:
        folder = tempfile.mkdtemp(prefix="fdb-reference-")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PACKAGE],
            check=True,
        )
    sys.path.insert(0, str(pathlib.Path(folder).resolve()))
    fdb = importlib.import_module("fdb")
    fdb._version = fdb.LATEST_API_VERSION
    stub = types.ModuleType("fdb.impl")
    stub.Value = Value
    # The decorator opens a transaction if it is given a database; here it is always given a transaction.
    stub.transactional = lambda function: function
    stub.strinc = _successor_of_prefix
    sys.modules["fdb.impl"] = stub
    fdb.impl = stub
    fdb.tuple = importlib.import_module("fdb.tuple")
    fdb.directory_impl = importlib.import_module("fdb.directory_impl")
    return fdb
