"""The answer to a dry run: what a request may cost at most, and what it probably will."""

from collections.abc import Sequence

from starlette.responses import Response

from decoders.core.base import DecodeRequest, Estimate
from server.intake import Chosen
from server.objects import DryRun
from server.service import Service
from server.wire import dumps


def dry_run(
    service: Service, chosen: Chosen, requests: Sequence[DecodeRequest], cost: Estimate
) -> Response:
    """What all choices of all prompts cost; RequestError if it would not be let in."""
    service.admission.width(cost)
    likely = service.costs.expect(requests, cost, service.admission.beside(cost.rows))
    answer: DryRun = {
        "object": "decoding.estimate",
        "model": chosen.served.id,
        "strategy": chosen.strategy.name,
        "params": chosen.options.model_dump(mode="json"),
        "prompt_tokens": sum(len(request.prompt) for request in requests),
        "max_tokens": max(request.max_tokens for request in requests),
        "estimate": {
            "rows": cost.rows,
            "generated_tokens": cost.generated_tokens,
            "engine_requests": cost.engine_requests,
            "monitor_calls": cost.monitor_calls,
        },
        "expected": {
            "generated_tokens": likely.generated_tokens,
            "row_seconds": likely.row_seconds,
            "mean_row_seconds": likely.mean_row_seconds,
            "seen": likely.seen,
        },
    }
    headers = {"x-decoding-strategy": chosen.strategy.name}
    return Response(dumps(answer), headers=headers, media_type="application/json")
