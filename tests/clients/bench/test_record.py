"""One request as its client saw it."""

import json
from collections.abc import AsyncIterator
from itertools import count

import pytest

from clients.bench.drive import seconds_of
from clients.bench.listening import listen
from clients.bench.record import Record
from tests.clients.bench.records import failed, record


def test_times_of_a_record() -> None:
    one = record()
    assert one.ttft == 0.1
    assert one.ttfa == 0.3
    assert one.ttfe == 0.05
    assert one.tpot == pytest.approx(0.4 / 4)
    assert one.itl == pytest.approx([0.1, 0.1, 0.2])
    assert (one.shown, one.generated, one.ok) == (5, 8, True)


def test_a_refused_request_has_no_times() -> None:
    one = failed()
    assert (one.ttft, one.ttfa, one.ttfe, one.tpot, one.itl) == (None, None, None, None, [])
    assert not one.ok


def test_an_answer_that_was_withheld_is_refused() -> None:
    assert record(decoding={"outcome": "refused"}).refused
    assert not record().refused


@pytest.mark.parametrize(
    ("after", "seconds"),
    [("3", 3.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("later", None), ("", None)],
)
def test_a_time_to_come_back_is_read_in_either_form(after: str, seconds: float | None) -> None:
    assert seconds_of(after) == seconds


def test_a_record_survives_its_file() -> None:
    one = record(3, right=False, predicted=9.5)
    again = Record.of(json.loads(json.dumps(one.as_json())))
    assert json.dumps(again.as_json()) == json.dumps(one.as_json())
    assert (again.ttfe, again.itl, again.tpot) == (one.ttfe, one.itl, one.tpot)
    assert (again.right, again.predicted, again.generated) == (False, 9.5, 8)
    assert Record.of({**one.as_json(), "newer": 1}).right is False


def event(**fields: object) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


STREAM = b"".join(
    [
        event(choices=[{"delta": {"role": "assistant", "content": ""}}]),
        b": keep-alive\n\n",
        event(choices=[{"delta": {}, "decoding": {"event": "path"}}]),
        event(choices=[{"delta": {"reasoning": "a", "reasoning_content": "a"}}]),
        event(choices=[{"delta": {"content": "4 "}}]),
        event(choices=[{"delta": {"content": "€"}}]),
        event(
            choices=[
                {
                    "delta": {},
                    "finish_reason": "stop",
                    "decoding": {"strategy": "plain", "branches": 2, "trace": {"nodes": []}},
                }
            ]
        ),
        event(choices=[], usage={"completion_tokens": 3, "decoding": {"generated_tokens": 4}}),
        b"data: [DONE]\n\n",
    ]
)


async def parts(stream: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(stream), size):
        yield stream[at : at + size]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_stream_is_heard_however_it_is_cut(size: int, end: bytes) -> None:
    named = STREAM.replace(b"data: ", b"event: message\ndata: ")
    # An event may go over lines, whose end may be cut in two.
    named = named.replace(b'[], "usage"', b'[],\ndata: "usage"')
    heard = await listen(parts(named.replace(b"\n", end), size), 0.0, clock=count(1).__next__)
    assert heard.fault() is None
    assert heard.text == "4 €"
    assert (len(heard.reasoning), len(heard.content)) == (1, 2)
    assert [name for _, name in heard.events] == ["path"]
    assert heard.decoding == {"strategy": "plain", "branches": 2}
    assert heard.usage["decoding"]["generated_tokens"] == 4
    # A role, a comment and an event are no text: what came first is the thinking.
    assert heard.events[0][0] <= heard.reasoning[0] <= heard.content[0]


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (STREAM[:-14], "[DONE]"),
        (event(error={"message": "engine died"}) + b"data: [DONE]\n\n", "engine died"),
        (event(choices=[{"delta": {"content": "a"}}]) + b"data: [DONE]\n\n", "finish_reason"),
    ],
)
async def test_what_breaks_off_is_no_answer(stream: bytes, fault: str) -> None:
    heard = await listen(parts(stream, 50), 0.0)
    assert fault in (heard.fault() or "")
