"""A guard on hardware of its own, as far as a delay can stand for one: finds everything safe, late.

    python -m benchmarks.far_guard --port N

Answers POST /MILLISECONDS/v1/moderations after so many milliseconds. It knows nothing of who asks.
"""

import argparse
import asyncio

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

VERDICT = {"flagged": False, "categories": {}, "category_scores": {"unsafe": 0.01}}


async def moderations(request: Request) -> JSONResponse:
    """The verdict, when its time has come."""
    await request.body()
    await asyncio.sleep(float(request.path_params["delay"]) / 1000)
    return JSONResponse({"id": "modr-1", "model": "far", "results": [VERDICT]})


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    routes = [Route("/{delay:float}/v1/moderations", moderations, methods=["POST"])]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")


if __name__ == "__main__":
    main()
