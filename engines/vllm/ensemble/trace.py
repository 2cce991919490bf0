"""What rules chose, on its way from the worker to the server: pushed each step, joined by position.

The worker keeps nothing, so there is nothing to evict there; the server keeps what came for a
request until its tokens have come too, and nothing once the request has ended. A record is the
choice before one position of one sequence. It knows neither rules nor vLLM.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from engines.base import EngineError

Record = dict[str, Any]
Batch = list[tuple[str, int, Record]]
SILENCE = 10.0  # seconds after which a record whose token has come is taken as lost


class Sender:
    """The worker's end. A step's records leave before its tokens do."""

    def __init__(self, address: str) -> None:
        self._socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        # Never waits for the server, and never holds the worker up at its end.
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.LINGER, 0)
        self._socket.connect(address)

    def send(self, batch: Batch) -> None:
        """One step's records."""
        try:
            spelled = msgspec.msgpack.encode(batch)
        except Exception:  # one rule's notes are nothing that can be spelled: the others' are
            spelled = msgspec.msgpack.encode([tellable(*entry) for entry in batch])
        with suppress(zmq.Again):  # the server takes no more: it has gone, and the engine follows
            self._socket.send(spelled, zmq.NOBLOCK)


def tellable(key: str, position: int, record: Record) -> tuple[str, int, Record]:
    """The entry as it is if it can be spelled, else with the reason in the place of its notes."""
    try:
        msgspec.msgpack.encode(record)
    except Exception as fault:
        reason = f"its notes cannot be told: {fault}"
        return key, position, {"policy": record.get("policy"), "degraded": reason}
    return key, position, record


class Receiver:
    """The server's end: records of live requests by key and position."""

    def __init__(self, address: str) -> None:
        """Opens the address; needs a running loop."""
        self._socket: Any = zmq.asyncio.Context.instance().socket(zmq.PULL)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.bind(address)
        self._kept: dict[str, dict[int, Record]] = {}
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Ends it; those who wait are told by their time-out."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._socket.close(0)

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, key: str) -> None:
        """Keeps what comes for a request from now on."""
        self._kept[key] = {}

    def drop(self, key: str) -> None:
        """Forgets a request."""
        self._kept.pop(key, None)

    async def take(self, key: str, positions: Sequence[int]) -> list[Record]:
        """The records of these positions, once they are all there. EngineError if one is lost."""
        kept = self._kept[key]
        if not all(position in kept for position in positions):
            try:
                async with asyncio.timeout(SILENCE), self._news:
                    await self._news.wait_for(lambda: all(p in kept for p in positions))
            except TimeoutError as fault:
                raise EngineError("the worker's trace was lost on its way") from fault
        return [kept.pop(position) for position in positions]

    async def _read(self) -> None:
        while True:
            batch = msgspec.msgpack.decode(await self._socket.recv())
            for key, position, record in batch:
                if key in self._kept:
                    self._kept[key][position] = record
            async with self._news:
                self._news.notify_all()
