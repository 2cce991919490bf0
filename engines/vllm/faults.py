"""vLLM's errors, sorted by who is at fault.

the caller's            VLLMClientError, ValueError      -> UnsupportedError (400)
too much load           QueueOverflowError, ...          -> EngineBusyError (503)
the engine is gone      EngineDeadError                  -> EngineDeadError (503)
anything else           VLLMServerError, ...             -> EngineError (500)
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from vllm.exceptions import (
    MaxQueuedTokensError,
    QueueOverflowError,
    VLLMClientError,
    VLLMValidationError,
)
from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

from engines.base import (
    BoundaryError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    Sampling,
    UnsupportedError,
)

PARAMS = {"structured_outputs": "response_format"}
FIELDS = {field.name for field in fields(Sampling)}
GRAMMAR = re.compile("grammar|schema|regex|structured|choice", re.IGNORECASE)


@contextmanager
def sorted_faults(name: str) -> Iterator[None]:
    """Turns vLLM's errors into ours; `name` is the engine's."""
    try:
        yield
    except (UnsupportedError, BoundaryError):
        raise
    except VllmDeadError as fault:
        raise EngineDeadError(f"engine {name!r} has died") from fault
    except (QueueOverflowError, MaxQueuedTokensError) as fault:
        raise EngineBusyError(f"engine {name!r} is full: {fault}") from fault
    except (VLLMClientError, ValueError) as fault:
        raise UnsupportedError(str(fault), _param(fault)) from fault
    except Exception as fault:
        raise EngineError(f"engine {name!r}: {type(fault).__name__}: {fault}") from fault


def _param(fault: Exception) -> str | None:
    """The field that vLLM blames, in our spelling."""
    param: str | None = fault.parameter if isinstance(fault, VLLMValidationError) else None
    if param is not None:
        return PARAMS.get(param, param)
    first, _, _ = str(fault).partition(" ")
    if first in FIELDS:
        return first
    return "response_format" if GRAMMAR.search(str(fault)) else None
