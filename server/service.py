"""What every endpoint stands on: the settings and the parts that live as long as the server."""

from dataclasses import dataclass, field

from starlette.requests import Request

from server.admission import Admission
from server.auth import Key, Keys
from server.costs import Costs
from server.fleet import Fleet
from server.metrics import Metrics
from server.record import Record
from server.settings.spec import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """One server's parts."""

    settings: Settings
    fleet: Fleet
    admission: Admission
    keys: Keys
    metrics: Metrics
    costs: Costs = field(default_factory=Costs)

    @classmethod
    def build(cls, settings: Settings, fleet: Fleet | None = None) -> "Service":
        """All parts; `fleet` where one is given already. Loads nothing."""
        fleet = fleet or Fleet(settings)
        admission = Admission(settings.limits)
        return cls(settings, fleet, admission, Keys(settings), Metrics(fleet, admission))


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Service = request.app.state.service
    return service


def record_of(request: Request) -> Record:
    """What is noted of the request while it is answered."""
    record: Record = request.scope["record"]
    return record


def key_of(request: Request) -> Key | None:
    """Who asks; None on an open server."""
    key: Key | None = request.scope.get("key")
    return key
