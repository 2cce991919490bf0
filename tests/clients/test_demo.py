"""What the demo does once a server is up, against a real one over a table engine."""

import asyncio
import io

from rich.console import Console

from clients import demo
from decoders.core.registry import names
from tests.server.api.live import Live


async def test_every_strategy_is_asked_and_shown(live: Live) -> None:
    out = io.StringIO()
    console = Console(file=out, width=160)
    results = await asyncio.to_thread(demo.ask_all, console, live.url)
    assert [result.strategy for result in results] == list(names())
    console.print(demo.table(results))
    for result in results:
        assert result.strategy in out.getvalue()
        assert result.told is not None or result.fault
    plain = next(result for result in results if result.strategy == "plain")
    assert plain.told is not None
    assert plain.told.finish in ("stop", "length")


async def test_a_strategy_that_fails_has_its_fault_in_place_of_an_answer(live: Live) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
    shown = await asyncio.to_thread(demo.ask, client, ["tab"], "nothing")
    assert shown.told is None
    assert "nothing" in shown.fault
    console = Console(file=io.StringIO(), width=160)
    console.print(demo.table([shown]))
    assert "—" in console.file.getvalue()  # type: ignore[attr-defined]
