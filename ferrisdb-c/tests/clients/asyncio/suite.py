"""The unmodified package `asyncio-foundationdb` on a FerrisDB cluster: its own tests.

    suite.py FOLDER     with FDB_CLUSTER_FILE and LD_LIBRARY_PATH set, the latter to the folder of libfdb_c.so alone

FOLDER is where the package is built and kept. Its source distribution needs two headers that are not in it: FoundationDB's, and
the same without what only a preprocessor understands. Both are made here from those in the crate `foundationdb-sys`. It is
compiled, so a C compiler has to be there.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

RELEASE = "0.13.0"
HEADERS = "0.11.0"
CRATE = f"https://static.crates.io/crates/foundationdb-sys/foundationdb-sys-{HEADERS}.crate"
API = 730
# What its tests import besides, one of them only for a comparison of tuples.
TESTED_WITH = ["pytest", "pytest-asyncio", "zstandard", "foundationdb>=7.3,<7.4"]

# The preprocessor finds these instead of the system's.
STANDARD = {"stdint.h": "", "stdbool.h": "", "stddef.h": ""}
# What cffi's parser does not know.
FOREIGN = re.compile(r"^\s*#.*$|__attribute__\s*\(\(.*?\)\)", re.MULTILINE)
# A structure's layout is the compiler's business: it may be packed.
STRUCTURE = re.compile(r"(typedef struct \w+ \{[^{}]*)\}")
# Declared twice, used by nobody here.
TWICE = re.compile(r"[^;{}]*\bfdb_\w*blob\w*\s*\([^;]*\)\s*;")


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def unpacked(url, folder):
    with urllib.request.urlopen(url) as answer, tarfile.open(fileobj=io.BytesIO(answer.read())) as archive:
        archive.extractall(folder, filter="data")
    return folder


def declarations(headers, scratch):
    """The header as cffi reads it: what the compiler sees of it, without what the parser does not know."""
    for name, text in STANDARD.items():
        (scratch / name).write_text(text)
    program = f"#define FDB_API_VERSION {API}\n#include <fdb_c.h>\n"
    command = ["cc", "-E", "-P", "-nostdinc", "-I", scratch, "-I", headers, "-"]
    seen = subprocess.run(
        [str(part) for part in command], input=program, capture_output=True, text=True, check=True
    )
    return STRUCTURE.sub(r"\1 ...; }", TWICE.sub("", FOREIGN.sub("", seen.stdout)))


def source_of_the_package():
    """Where its source distribution is: the index says so."""
    with urllib.request.urlopen("https://pypi.org/simple/asyncio-foundationdb/") as answer:
        found = re.search(rf'href="([^"#]*asyncio_foundationdb-{RELEASE}\.tar\.gz)', answer.read().decode())
    assert found, f"asyncio-foundationdb {RELEASE} is not in the index"
    return found.group(1)


def build(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    headers = unpacked(CRATE, folder) / f"foundationdb-sys-{HEADERS}" / "include" / str(API)
    package = unpacked(source_of_the_package(), folder) / f"asyncio_foundationdb-{RELEASE}"
    scratch = folder / "scratch"
    scratch.mkdir()
    (package / "found" / "fdb_c.h").write_text(f"#define FDB_API_VERSION {API}\n#include <fdb_c.h>\n")
    (package / "found" / "fdb_c2.h").write_text(declarations(headers, scratch))

    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    settings = {
        **os.environ,
        "FDB_INCLUDE_DIR": str(headers),
        "FDB_LIB_DIR": os.environ["LD_LIBRARY_PATH"],
    }
    run(python, "-m", "pip", "install", "--quiet", package, *TESTED_WITH, env=settings)
    # Whoever imports `found` is to find the installed one.
    (package / "found").rename(folder / "source")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (folder / "complete").write_text("")


def main():
    folder = Path(sys.argv[1]).resolve()
    if not (folder / "complete").exists():
        build(folder)
    python = folder / "environment" / "bin" / "python"
    # In a program of its own, as its tests are inside of the package.
    options = ["-c", folder / "pytest.ini", "--rootdir", folder, "-p", "no:cacheprovider", "-W", "ignore"]
    where = "import found.tests; print(found.tests.__file__)"
    tests = subprocess.run([str(python), "-c", where], check=True, capture_output=True, text=True)
    run(python, "-m", "pytest", "--verbose", *options, tests.stdout.strip())
    print(f"all tests passed, asyncio-foundationdb {RELEASE}")


main()
