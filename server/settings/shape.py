"""Holds a configuration against its pydantic models and says in words what does not fit.

A part that does not fit is cut out (or filled in, where it must be there) and the rest looked at
again, so that one fault hides no other.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from server.settings.marks import Place
from server.settings.spec import Settings

Problem = tuple[Place, str]
UNNAMED = "\0"
"""Stands where a name is missing or unfit; it names nothing and is not looked up."""
FILLERS = {"kind": UNNAMED, "engine": UNNAMED, "strategy": UNNAMED, "hash": "0" * 64}


def fitted(value: Mapping[str, Any]) -> tuple[Settings | None, list[Problem]]:
    """Settings of all that fits (None if nothing does) and every problem."""
    rest, problems = deepcopy(dict(value)), list[Problem]()
    for _ in range(1000):
        try:
            return Settings.model_validate(rest), problems
        except ValidationError as fault:
            found = [(place, text) for place, text in explained(fault, Settings)]
            problems += found
            cuts = [_cut(rest, place) for place, _ in found]  # all of them, not up to the first
            if True not in cuts:
                break
    return None, problems


def explained(
    fault: ValidationError, model: type[BaseModel], under: Place = ()
) -> Iterator[Problem]:
    """Each error's place, below `under`, and what is wrong there."""
    for error in fault.errors(include_url=False, include_context=False):
        place: Place = tuple(part for part in error["loc"] if part != "[key]")
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key" + _nearest(str(place[-1]), fields(model, place[:-1]))
        elif error["type"] == "missing":
            message = "is missing"
        elif error["type"] not in ("value_error", "literal_error"):
            message = f"{message}, not {_short(error['input'])}"
        yield (*under, *place), message


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean …?`, or what there is if nothing is near."""
    return _nearest(name, known) or f"; there are {', '.join(sorted(known)) or 'none'}"


def fields(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that may stand at a place."""
    found: Any = model
    for part in place:
        found = _inner(found, part)
    found = _bare(found)
    known = isinstance(found, type) and issubclass(found, BaseModel)
    return list(found.model_fields) if known else []


def _inner(annotation: Any, part: str | int) -> Any:
    bare = _bare(annotation)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        field = bare.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(bare)
    return arguments[-1] if arguments else None


def _bare(annotation: Any) -> Any:
    """`X` of `X | None`; of a wider union the first model."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    choices = [a for a in get_args(annotation) if a is not NoneType]
    return choices[0] if choices else None


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _cut(value: Any, place: Place) -> bool:
    """Removes or fills what stands at `place` or is missing there; says if it could."""
    owners: list[tuple[dict[Any, Any], Any]] = []
    for depth, part in enumerate(place):
        last = depth == len(place) - 1
        if isinstance(value, dict) and (part in value or (last and part in FILLERS)):
            owners.append((value, part))
        elif not (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            if not last:
                return False
            break
        value = None if last else value[part]
    if owners:
        owner, key = owners[-1]
        owner.pop(key, None)
        if key in FILLERS:
            owner[key] = FILLERS[key]
    return bool(owners)
