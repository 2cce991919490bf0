"""Seeds by purpose: one request seed becomes one seed per choice, path, step and attempt.

A seed says what an engine request is for, never when it ran, so timing cannot change an answer.
"""

from hashlib import blake2b

BITS = 48  # survives JSON numbers and every engine's integer width


def derive(seed: int | None, *purpose: int | str) -> int | None:
    """The seed for `purpose` under `seed`; None stays None (unseeded)."""
    if seed is None:
        return None
    spelled = "\x1f".join([str(seed), *map(str, purpose)]).encode()
    return int.from_bytes(blake2b(spelled, digest_size=BITS // 8).digest(), "big")
