"""GET /v1/strategies and /v1/strategies/{name}: the strategies and their parameters."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from decoders.core.base import RequestError
from decoders.core.registry import find, names
from server.objects import StrategyList, StrategyObject
from server.openapi import answers
from server.wire import dumps

router = APIRouter()


def described(name: str) -> StrategyObject:
    """A strategy as clients see it. Raises `RequestError` for an unknown name."""
    strategy = find(name)
    return {
        "name": strategy.name,
        "object": "strategy",
        "summary": strategy.summary,
        "source": strategy.source,
        "requires": sorted(strategy.requires),
        "honours": sorted(strategy.honours),
        "parameters": strategy.options.model_json_schema(),
    }


@router.get("/v1/strategies", **answers(StrategyList, "Strategies"))
async def list_strategies(request: Request) -> Response:
    """Every strategy with the JSON Schema of its parameters."""
    listed: StrategyList = {"object": "list", "data": [described(name) for name in names()]}
    return Response(dumps(listed), media_type="application/json")


@router.get("/v1/strategies/{name}", **answers(StrategyObject, "Strategies"))
async def retrieve_strategy(request: Request, name: str) -> Response:
    """One strategy."""
    try:
        found = described(name)
    except RequestError as unknown:
        # Here the name is the path, not a field of a body.
        raise RequestError(str(unknown), None, unknown.code) from None
    return Response(dumps(found), media_type="application/json")
