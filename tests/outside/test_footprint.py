"""What the built-in server takes of a machine once every model of it has answered."""

import httpx
import openai
import psutil
import pytest

from clients.demo import is_own
from clients.local import Local

pytestmark = [pytest.mark.outside, pytest.mark.vllm, pytest.mark.timeout(600)]
MOST_BYTES = 8e9


def test_the_built_in_server_stays_under_eight_gigabytes(local: Local) -> None:
    assert local.pid
    client = openai.OpenAI(base_url=f"{local.url}/v1", api_key="none", timeout=300)
    for model in client.models.list().data:
        if is_own(model):
            client.chat.completions.create(
                model=model.id, messages=[{"role": "user", "content": "Hello"}], max_tokens=32
            )
    assert not httpx.get(f"{local.url}/ready", timeout=30).json()["cold"]
    server = psutil.Process(local.pid)
    tree = [server, *server.children(recursive=True)]
    # Shared pages are split among those that share them.
    assert sum(process.memory_full_info().pss for process in tree) < MOST_BYTES
