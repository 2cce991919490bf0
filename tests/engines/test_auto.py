"""Threads that load models at once find the library whole."""

import subprocess
import sys

THREADS = """
from concurrent.futures import ThreadPoolExecutor
from engines.auto import NAMES, transformers

with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda _: [getattr(transformers(), name) for name in NAMES], range(8)))
assert all(one == found[0] for one in found)
"""


def test_threads_that_load_at_once_find_every_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
