"""GET /v1/monitors: what watches, in which unit, what a threshold on it can be, what it cost."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from monitors.core.base import Calibration, Monitor
from monitors.core.protected import Costs, Protected
from server.objects import Bounds, MonitorCosts, MonitorList, MonitorObject, Range
from server.openapi import answers
from server.service import service_of
from server.wire import dumps

router = APIRouter()


def _range(calibration: Calibration | None) -> Range | None:
    if calibration is None:
        return None
    return {
        "mean": calibration.mean,
        "std": calibration.std,
        "low": calibration.low,
        "high": calibration.high,
        "threshold": calibration.threshold,
        "n": calibration.n,
    }


def _bounds(monitor: Monitor) -> Bounds | None:
    """What a threshold on it can be; None where the unit has no limits, as logits have none."""
    return None if monitor.ceiling is None else {"low": monitor.floor, "high": monitor.ceiling}


def _costs(costs: Costs) -> MonitorCosts:
    return {
        "calls": costs.calls,
        "failures": costs.failures,
        "refused": costs.refused,
        "seconds": round(costs.seconds, 4),
        "tokens": costs.tokens,
    }


def described(name: str, monitor: Monitor) -> MonitorObject:
    """A monitor as clients see it."""
    shield = monitor if isinstance(monitor, Protected) else None
    return {
        "name": name,
        "object": "monitor",
        "kind": monitor.kind,
        "unit": monitor.unit,
        "threshold": monitor.threshold,
        "bounds": _bounds(monitor),
        "calibration": _range(monitor.calibration),
        "circuit": shield.breaker.state.value if shield else "closed",
        "costs": _costs(shield.costs) if shield else None,
        "warnings": list(monitor.warnings),
    }


@router.get("/v1/monitors", **answers(MonitorList, "Monitors"))
async def list_monitors(request: Request) -> Response:
    """Every configured monitor."""
    found = service_of(request).fleet.monitors
    data = [described(name, monitor) for name, monitor in found.items()]
    listed: MonitorList = {"object": "list", "data": data}
    return Response(dumps(listed), media_type="application/json")
