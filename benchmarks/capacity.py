"""How many requests a second a server answers when its rows never idle.

It knows neither the server nor what is asked of it.
"""

from collections.abc import Callable, Sequence

LEAST = 4
"""Requests of each client: with fewer, hardly anything lies between the start and the end."""
Loop = Callable[[int], Sequence[float]]
"""Sends so many requests in a closed loop; when each answer ended, in seconds."""


def capacity(loop: Loop, clients: int, seconds: float) -> float:
    """Answers a second of a loop that takes about so long; a short one before says how many."""
    least = LEAST * clients
    return steady(loop(max(least, round(seconds * steady(loop(least))))))


def steady(ended: Sequence[float]) -> float:
    """Answers a second from the first tenth to the last: neither the start nor the lonely last."""
    ordered = sorted(ended)
    low, high = len(ordered) // 10, 9 * len(ordered) // 10
    return (high - low) / (ordered[high] - ordered[low])
