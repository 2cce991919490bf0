"""What the built-in server takes of a machine, after whatever was asked of it before."""

import psutil
import pytest

from clients.local import Local

pytestmark = [pytest.mark.outside, pytest.mark.vllm, pytest.mark.timeout(600)]
MOST_BYTES = 8e9


def test_the_built_in_server_stays_under_eight_gigabytes(local: Local) -> None:
    assert local.pid
    server = psutil.Process(local.pid)
    tree = [server, *server.children(recursive=True)]
    # Shared pages are split among those that share them.
    assert sum(process.memory_full_info().pss for process in tree) < MOST_BYTES
