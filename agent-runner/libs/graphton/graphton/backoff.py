"""Pauses between attempts."""

import random
from collections.abc import Iterator


def backoff(first: float, longest: float, *, factor: float = 2.0) -> Iterator[float]:
    """Yield pauses in seconds: `first`, then each `factor` times the one before, up to `longest`.

    The iterator does not end.
    """
    pause = first
    while True:
        yield pause
        pause = min(pause * factor, longest)


def jitter(pause: float) -> float:
    """Shorten a pause to a random part between one half and the whole.

    Clients that fail at the same moment then do not retry at the same moment.
    """
    return pause * random.uniform(0.5, 1)  # noqa: S311 (not used for security)
