"""Files that a configuration names: built-in models and paths beside the configuration file.

`builtin:NAME` is a miniature model that comes with the server. A value that begins with `./`, `../`
or `~/` is a path; those are relative to the configuration file. Anything else is left as it stands.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from server.settings.marks import Place

BUILTIN = "builtin:"
FILES = {"chat_template", "keys_file", "calibration", "words_file"}
"""Keys whose value is a file, however it is written."""


def builtin(name: str) -> Path:
    """The folder of a miniature model. Raises ValueError that names those there are."""
    from testbed import WEIGHTS

    there = sorted(p.name for p in WEIGHTS.glob("*") if p.is_dir()) if WEIGHTS.is_dir() else []
    if name not in there:
        raise ValueError(f"there is no built-in model {name!r}; there are {', '.join(there)}")
    return WEIGHTS / name


def located(text: str, base: Path, file: bool = False) -> str:
    """The value with its path made absolute. Raises ValueError if it is not there."""
    if text.startswith(BUILTIN):
        return str(builtin(text.removeprefix(BUILTIN)))
    if not file and not text.startswith(("./", "../", "~/", "/")):
        return text
    path = (base / Path(text).expanduser()).resolve()
    if not path.exists():
        raise ValueError(f"there is no {'file' if file else 'file or folder'} {path}")
    return str(path)


def resolve(value: Any, base: Path) -> tuple[Any, list[tuple[Place, str]]]:
    """The configuration with its paths made absolute, and what is not there."""
    faults: list[tuple[Place, str]] = []
    if not isinstance(value, Mapping):
        return value, faults
    resolved = dict(value)
    for section in ("engines", "monitors", "models", "server"):
        if section in value:
            resolved[section] = _walk(value[section], (section,), base, faults)
    return resolved, faults


def _walk(value: Any, place: Place, base: Path, faults: list[tuple[Place, str]]) -> Any:
    if isinstance(value, Mapping):
        return {key: _walk(v, (*place, key), base, faults) for key, v in value.items()}
    if isinstance(value, list):
        return [_walk(v, (*place, i), base, faults) for i, v in enumerate(value)]
    if not isinstance(value, str) or not _may_be_path(place):
        return value
    try:
        return located(value, base, file=place[-1] in FILES)
    except ValueError as fault:
        faults.append((place, str(fault)))
        return value


def _may_be_path(place: Place) -> bool:
    """Text elsewhere (an origin, a pattern, a parameter) is never taken for a path."""
    names = list(_names(place))
    if place[0] in ("server", "models"):
        return bool(names) and names[-1] in FILES
    return bool({"model", "tokenizer", "members", *FILES} & set(names[2:]))


def _names(place: Place) -> Iterator[str]:
    return (part for part in place if isinstance(part, str))
