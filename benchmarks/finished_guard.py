"""A gateway that judges finished answers: asks unstreamed, has the text moderated, passes or not.

    python -m benchmarks.finished_guard --port N --url URL

POST /answer/v1/chat/completions has the answer judged, /whole/v1/chat/completions its thinking with
it, both by POST /v1/moderations of the server at URL. It cannot reach the tokens, and what it does
not pass it can only withhold.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

REFUSAL = "This answer was withheld."
PLAIN = {"stream": False, "decoding": {"strategy": "plain"}}


class Gateway:
    """What stands between a client and the server behind `upstream`."""

    def __init__(self, upstream: httpx.AsyncClient) -> None:
        self._upstream = upstream

    async def chat(self, request: Request) -> JSONResponse:
        """The model's answer if it is judged safe, else a refusal."""
        body = {**await request.json(), **PLAIN}
        got = await self._upstream.post("/v1/chat/completions", json=body)
        answer = got.json()
        if got.status_code != httpx.codes.OK:
            return JSONResponse(answer, got.status_code)
        (choice,) = answer["choices"]
        text = judged(choice["message"], request.path_params["what"] == "whole")
        if text and await self._flagged(text):
            answer["choices"] = [withheld(choice)]
        return JSONResponse(answer)

    async def _flagged(self, text: str) -> bool:
        got = await self._upstream.post("/v1/moderations", json={"input": text})
        (verdict,) = got.raise_for_status().json()["results"]
        return bool(verdict["flagged"])


def judged(message: Mapping[str, Any], whole: bool) -> str:
    """The text that is moderated."""
    parts = [message.get("reasoning") if whole else None, message.get("content")]
    return "\n\n".join(part for part in parts if part)


def withheld(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The choice with nothing left of what the model wrote."""
    message = {"role": "assistant", "content": REFUSAL}
    return {**choice, "message": message, "finish_reason": "content_filter"}


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url", required=True)
    asked = parser.parse_args()
    fresh = httpx.Limits(max_keepalive_connections=0)
    gateway = Gateway(httpx.AsyncClient(base_url=asked.url, timeout=300, limits=fresh))
    path = "/{what}/v1/chat/completions"
    app = Starlette(routes=[Route(path, gateway.chat, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
