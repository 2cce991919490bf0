"""Reads a configuration: a file, one model by name, or the built-in one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.settings import crosscheck, marks, places, shape
from server.settings.fault import Fault, SettingsError
from server.settings.marks import Marked
from server.settings.spec import Settings

BUILTIN = Path(__file__).resolve().parent.parent / "builtin.yaml"
MARKERS = ("<think>", "</think>")


def load(path: str | Path | None = None, model: str | None = None) -> Settings:
    """The settings of a file, of one model served by vLLM, or the built-in ones.

    Raises SettingsError with every fault.
    """
    if path is None and model is not None:
        value = one_model(model)
        settings, faults, source = *examined(Marked(value), Path.cwd()), model
    else:
        file = Path(path or BUILTIN)
        settings, faults = inspected(file)
        source = str(file)
    if faults or settings is None:
        raise SettingsError(faults, source)
    return settings


def inspected(path: Path) -> tuple[Settings | None, list[Fault]]:
    """The settings of a file as far as they fit, and every fault in the order of lines."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        return None, [Fault(0, "", f"cannot read {path}: {fault}")]
    return examined(marks.read(text), path.resolve().parent)


def examined(marked: Marked, base: Path) -> tuple[Settings | None, list[Fault]]:
    """The same for a document; relative paths in it are relative to `base`."""
    value = {} if marked.value is None else marked.value
    if not isinstance(value, Mapping):
        whole = Fault(1, "", "the configuration must be a mapping of sections")
        return None, marked.faults or [whole]
    written = {key: section for key, section in value.items() if section is not None}
    value, missing = places.resolve(written, base)
    settings, unfit = shape.fitted(value)
    across = [] if settings is None else list(crosscheck.problems(settings, value))
    found = [marked.fault(place, message) for place, message in (*missing, *unfit, *across)]
    return settings, sorted({*marked.faults, *found})


def one_model(model: str) -> dict[str, Any]:
    """The configuration of one vLLM engine; its think markers are read off its tokenizer.

    Raises SettingsError if the model's tokenizer cannot be loaded.
    """
    try:
        local = model.startswith(places.BUILTIN)
        where = places.located(model, Path.cwd()) if local else model
        folder = Path(where).expanduser()
        where = str(folder.resolve()) if folder.is_dir() else where
        markers = think_markers(where)
    except (OSError, ValueError) as fault:
        raise SettingsError([Fault(0, "", str(fault))], model) from fault
    name = Path(where).name if Path(where).is_dir() else model
    return {
        "engines": {"main": {"kind": "vllm", "model": where}},
        "models": {name: {"engine": "main", "think": markers}},
    }


def think_markers(model: str) -> list[str] | None:
    """`<think>`, `</think>` if both are tokens of their own or the chat template writes them."""
    from engines.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(model)
    single = all(len(tokenizer.encode(marker, special=False)) == 1 for marker in MARKERS)
    template = str(tokenizer.hf.chat_template or "")
    return list(MARKERS) if single or MARKERS[1] in template else None
