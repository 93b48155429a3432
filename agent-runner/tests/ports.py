"""Ports for servers that tests start, where the server cannot choose one itself."""

import itertools
import os
import socket

_tried = itertools.count()


def free_port() -> int:
    """A port on which nothing listens, and that no other test of this process gets.

    A port that the system chooses (port 0) is not safe: after the socket is closed, the system may
    give it to another program before the server uses it. By default the system chooses ports above
    32767 (Linux) or 49151 (macOS).
    """
    failure: OSError | None = None
    for _ in range(1000):
        # Processes that run tests at the same time mostly begin at different ports.
        port = 10_000 + (os.getpid() * 100 + next(_tried)) % 10_000
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError as error:
                failure = error
                continue
            return port
    raise AssertionError("no free port was found") from failure
