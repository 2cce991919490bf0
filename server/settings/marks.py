"""YAML that remembers on which line every key stands, and refuses a key given twice.

It knows nothing of what the keys mean.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

from server.settings.fault import Fault

Place = tuple[str | int, ...]
"""A path of keys and list indices from the top."""


def spelled(place: Place) -> str:
    """`models.x.think[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


@dataclass(slots=True)
class Marked:
    """A document's value, the line of every place in it, and what was wrong with its form."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of a place, else of the nearest one around it; 0 without any."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def fault(self, place: Place, message: str) -> Fault:
        """A fault at that place."""
        return Fault(self.line(place), spelled(place), message)


def read(text: str) -> Marked:
    """The first document of `text`; faults of form stand in the result, nothing is raised."""
    marked = Marked()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            marked.value = _Reader(loader, marked).value(node, ())
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line = mark.line + 1 if mark else 0
        marked.faults.append(Fault(line, "", f"not YAML: {fault.problem or fault.context}"))
    except yaml.YAMLError as fault:
        marked.faults.append(Fault(0, "", f"not YAML: {' '.join(str(fault).split())}"))
    return marked


class _Reader:
    """Walks the nodes once, building plain values."""

    def __init__(self, loader: yaml.SafeLoader, marked: Marked) -> None:
        self._loader = loader
        self._marked = marked
        self._open: set[int] = set()

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._marked.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._open:
            return self._fault(node, place, "an alias stands inside what it refers to")
        self._open.add(id(node))
        try:
            self._refuse_tag(node, place)
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
            return self._scalar(node, place)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.constructor.ConstructorError, ValueError) as fault:
            reason = getattr(fault, "problem", None) or str(fault)
            return self._fault(node, place, reason)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Any, Any]:
        self._refuse_twice(node, place)
        self._loader.flatten_mapping(node)
        built = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, place)
            inner = (*place, key if isinstance(key, int) else str(key))
            self._marked.lines[inner] = key_node.start_mark.line + 1
            built[key] = self.value(value_node, inner)
        return built

    def _key(self, node: yaml.Node, place: Place) -> Hashable:
        key = self._scalar(node, place) if isinstance(node, yaml.ScalarNode) else None
        if key is None:
            self._fault(node, place, "a key must be a plain word")
        return key if isinstance(key, Hashable) else str(key)

    def _refuse_twice(self, node: yaml.MappingNode, place: Place) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            name = str(key_node.value)
            if name in seen and isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, (*place, name), f"given twice, first on line {seen[name]}")
            seen.setdefault(name, line)

    def _refuse_tag(self, node: yaml.Node, place: Place) -> None:
        core = "tag:yaml.org,2002:"
        plain: dict[type[yaml.Node], str] = {
            yaml.MappingNode: f"{core}map",
            yaml.SequenceNode: f"{core}seq",
        }
        if node.tag != plain.get(type(node), node.tag):
            self._fault(node, place, f"the tag {node.tag} is not known")

    def _fault(self, node: yaml.Node, place: Place, message: str) -> None:
        line = node.start_mark.line + 1
        self._marked.faults.append(Fault(line, spelled(place), message))
