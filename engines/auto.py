"""Hugging Face's library, loaded by one thread alone.

It fills in its names at their first use, and of several threads that ask for one at once some find
it missing. Knows no model.
"""

import threading
from typing import Any

NAMES = (
    "AutoConfig",
    "AutoTokenizer",
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
)
_alone = threading.Lock()


def transformers() -> Any:
    """The module, with what starting engines and monitors need of it in place."""
    with _alone:
        import transformers

        for name in NAMES:
            getattr(transformers, name)
    return transformers
