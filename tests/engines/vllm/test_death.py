"""How an engine ends: killed, stopped, or left behind by a server that was killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from engines.base import EngineDeadError, Sampling
from engines.vllm.engine import VllmEngine
from tests.engines.vllm.conftest import made

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
SOON = 5.0  # seconds, where the orphans of a killed engine have the cores for a while

ROOT = Path(__file__).resolve().parents[3]
PROMPT = [70, 71, 72, 73]
SERVER = """
import asyncio, sys
from pathlib import Path
from tests.engines.vllm.conftest import made

async def serve():
    await made("left", Path(sys.argv[1])).start()
    print("ready", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(serve())
"""


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def core(engine: VllmEngine) -> int:
    """The process of the engine's core."""
    assert engine._llm is not None
    first, *_ = engine._llm.engine_core.resources.engine_manager.processes
    return int(first.pid)


def alive(process: psutil.Process) -> bool:
    """One that has ended and that nobody has reaped is not alive."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(processes: list[psutil.Process], seconds: float = 30) -> bool:
    """Whether all have ended in time."""
    deadline = time.monotonic() + seconds
    while any(map(alive, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


async def reading(engine: VllmEngine) -> "asyncio.Task[None]":
    """A task that reads an endless answer, which has begun."""
    began = asyncio.Event()

    async def read() -> None:
        while True:
            async for _ in engine.generate(PROMPT, Sampling(ignore_eos=True), 500):
                began.set()

    task = asyncio.create_task(read())
    await began.wait()
    return task


@pytest.fixture(scope="module")
async def pair(llama: Path) -> AsyncIterator[tuple[VllmEngine, VllmEngine]]:
    """Two engines, started side by side, the first with its worker in a process of its own."""
    doomed = made("doomed", llama, distributed_executor_backend="mp")
    other = made("other", llama)
    await asyncio.gather(doomed.start(), other.start())
    yield doomed, other
    await asyncio.gather(doomed.stop(), other.stop())


async def test_a_killed_engine_is_seen_at_once(pair: tuple[VllmEngine, VllmEngine]) -> None:
    doomed, other = pair
    assert len(family(core(doomed))) >= 2
    tasks = [await reading(doomed) for _ in range(3)]
    going_on = await reading(other)
    processes = family(core(doomed))
    os.kill(core(doomed), signal.SIGKILL)
    async with asyncio.timeout(SOON):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [EngineDeadError] * 3
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineDeadError, match="doomed"):
            await doomed.check()
        with pytest.raises(EngineDeadError):
            await doomed.score(PROMPT, PROMPT)
        with pytest.raises(EngineDeadError):
            await anext(doomed.generate(PROMPT, Sampling(), 1))
    assert doomed.running == 0
    assert gone(processes)
    await other.check()
    assert not going_on.done()
    going_on.cancel()
    with suppress(asyncio.CancelledError):
        await going_on


async def test_stopping_ends_calls_and_processes(pair: tuple[VllmEngine, VllmEngine]) -> None:
    _, other = pair
    task = await reading(other)
    processes = family(core(other))
    stopping = asyncio.create_task(other.stop())
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineDeadError):
            await task
    await stopping
    assert gone(processes)
    with pytest.raises(EngineDeadError, match="other"):
        await other.check()
    assert other.figures() == {}
    await other.stop()


def begun(llama: Path, tmp_path: Path) -> "subprocess.Popen[str]":
    """A server in a process of its own; it writes a line when its engine is ready."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    return subprocess.Popen(
        [sys.executable, script, llama],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_server_leaves_nothing_behind(llama: Path, tmp_path: Path) -> None:
    server = begun(llama, tmp_path)
    try:
        assert server.stdout is not None
        assert "ready\n" in server.stdout
        left = family(server.pid)[1:]
        assert len(left) >= 2
    finally:
        server.kill()
        server.wait()
    assert gone(left)


def test_nor_does_one_that_is_killed_while_its_engine_loads(llama: Path, tmp_path: Path) -> None:
    server = begun(llama, tmp_path)
    try:
        # The first child keeps track of what is shared, the second is the engine.
        while len(left := family(server.pid)[1:]) < 2:
            time.sleep(0.05)
    finally:
        server.kill()
        server.wait()
    assert gone(left, 90)
