"""The house's measures, over all of our Python and prose.

Says where each fault stands: file, line, measure. It knows no behaviour, only form; what mypy and
ruff check is left to them.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("server", "decoders", "monitors", "engines", "clients", "testbed")
TENSOR_ROOMS = ("engines", "testbed")
TENSOR_PACKAGES = {"torch", "transformers", "vllm"}
PROSE = {".md", ".py", ".toml", ".yaml", ".yml", ".json", ".jinja", ".sh", ".txt", ".cfg"}
UNREAD = {".envs", ".venv", ".git", "build", "dist", "results", "node_modules", "__pycache__"}
VAGUE = {"manager", "handler", "helper", "util", "utils", "data", "info", "helpers", "managers"}
# Spelled so that this file does not match itself.
FOREIGN = re.compile(
    r"/[w]ork/|/[r]oot/\.pyenv|(?<![\w.])/[h]ome/\w|/[U]sers/\w"
    r"|\.\./[s]hared(?!/data)|\b[i]ssues? #?\d"
)

FUNCTION_MEDIAN, FUNCTION_P95, FUNCTION_MAX = 8, 40, 60
FILE_MEDIAN, FILE_MAX = 150, 500


@dataclass(frozen=True)
class Measured:
    """Something with a place and a length in lines."""

    path: str
    line: int
    name: str
    lines: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} has {self.lines} lines"


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in UNREAD or path.name.endswith(("_cache", ".egg-info")):
            continue
        if path.is_dir():
            yield from walk(path)
        else:
            yield path


@cache
def sources(*, tests: bool = False) -> tuple[Path, ...]:
    """Our modules; with the tests too if asked."""
    tops = [ROOT / room for room in (*ROOMS, *(["tests"] if tests else []))]
    found = [path for top in tops for path in walk(top) if path.suffix == ".py"]
    return (*found, ROOT / "satisfice.py", ROOT / "scripts" / "lock")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def docstring_lines(node: ast.AST) -> set[int]:
    body = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return set(range(body[0].lineno, (body[0].end_lineno or body[0].lineno) + 1))
    return set()


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> int:
    """Lines from `def` to the end, without the docstring, blank lines and comments."""
    prose = docstring_lines(node)
    span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    lines = [text[n - 1].strip() for n in span if n not in prose]
    return sum(1 for line in lines if line and not line.startswith("#"))


def functions(path: Path) -> Iterator[Measured]:
    text = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Measured(relative(path), node.lineno, node.name, code_lines(node, text))


def all_functions(*, tests: bool = False) -> list[Measured]:
    found = [measured for path in sources(tests=tests) for measured in functions(path)]
    return sorted(found, key=lambda measured: -measured.lines)


def files(*, tests: bool = False) -> list[Measured]:
    lengths = [
        (path, len(path.read_text(encoding="utf-8").splitlines())) for path in sources(tests=tests)
    ]
    found = [Measured(relative(path), 1, path.name, length) for path, length in lengths]
    return sorted(found, key=lambda measured: -measured.lines)


def listed(faults: list[str]) -> str:
    return f"{len(faults)} found\n" + "\n".join(faults[:40])


def none_of(faults: list[str]) -> None:
    if faults:
        pytest.fail(listed(faults), pytrace=False)


def test_no_function_is_longer_than_the_limit() -> None:
    none_of([str(f) for f in all_functions(tests=True) if f.lines > FUNCTION_MAX])


def test_functions_are_short() -> None:
    found = all_functions()
    lengths = [f.lines for f in found]
    middle, p95 = median(lengths), quantiles(lengths, n=20)[-1]
    longest = listed([str(f) for f in found if f.lines > FUNCTION_P95])
    assert middle <= FUNCTION_MEDIAN, f"the median function has {middle} lines (n={len(found)})"
    assert p95 <= FUNCTION_P95, (
        f"the 95th percentile is {p95} lines; over {FUNCTION_P95}: {longest}"
    )


def test_no_file_is_longer_than_the_limit() -> None:
    none_of([str(f) for f in files(tests=True) if f.lines > FILE_MAX])


def test_files_are_short() -> None:
    found = [f for f in files() if f.name != "__init__.py"]
    middle = median(f.lines for f in found)
    longest = "\n".join(str(f) for f in found[:10])
    assert middle <= FILE_MEDIAN, f"the median file has {middle} lines; the longest:\n{longest}"


def test_every_module_says_what_it_is_for() -> None:
    none_of(
        [
            f"{relative(p)}:1: no module docstring"
            for p in sources(tests=True)
            if not ast.get_docstring(tree(p))
        ]
    )


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return set(spaced.lower().split("_"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("EngineManager", {"manager"}),
        ("http_utils", {"utils"}),
        ("Metadata", set()),
        ("HTTPInfo", {"info"}),
    ],
)
def test_vague_words_are_told_from_others(name: str, found: set[str]) -> None:
    assert words(name) & VAGUE == found


def test_names_say_what_things_are() -> None:
    faults = []
    for path in sources():
        names = [(1, path.stem)]
        names += [(n.lineno, n.name) for n in ast.walk(tree(path)) if isinstance(n, ast.ClassDef)]
        faults += [
            f"{relative(path)}:{line}: vague name {name}"
            for line, name in names
            if words(name) & VAGUE
        ]
    none_of(faults)


def test_nothing_mentions_one_machine_or_one_tracker() -> None:
    faults = []
    for path in walk(ROOT):
        if path.suffix in PROSE or path.name in {"Makefile", "Dockerfile", "setup", "run", "lock"}:
            text = path.read_text(encoding="utf-8", errors="replace")
            for match in FOREIGN.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                faults.append(f"{relative(path)}:{line}: mentions {match.group()!r}")
    none_of(faults)


def declared(path: Path) -> list[str]:
    """The names given to `@decoder("name", ...)` in a module."""
    calls = [
        mark
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).split(".")[-1] == "decoder"
    ]
    return [ast.unparse(call.args[0]).strip("'\"") for call in calls if call.args]


def test_every_decoder_file_declares_the_one_it_is_named_after() -> None:
    paths = [p for p in (ROOT / "decoders").glob("*.py") if p.name != "__init__.py"]
    none_of([f"{relative(p)}:1: declares {declared(p)}" for p in paths if declared(p) != [p.stem]])


def top_imports(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Line and top package of what a module imports as it loads (not under TYPE_CHECKING)."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, (node.module or "").split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from top_imports(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from top_imports(getattr(node, field, []))


def test_tensors_load_with_engines_only() -> None:
    faults = []
    for path in sources():
        if relative(path).split("/")[0] in TENSOR_ROOMS:
            continue
        seen = [
            (line, name) for line, name in top_imports(tree(path).body) if name in TENSOR_PACKAGES
        ]
        faults += [f"{relative(path)}:{line}: imports {name} at module top" for line, name in seen]
    none_of(faults)


def test_the_face_imports_nothing_heavy() -> None:
    probe = "import sys, satisfice; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    ran = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {*TENSOR_PACKAGES, "fastapi", "openai", "server", "decoders", "engines"}
    assert not heavy & set(ran.stdout.split())


def test_imports_run_one_way() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    ran = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-6000:]
