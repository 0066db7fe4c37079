"""Refuses connections to any address but sockets of this machine's files, and lists them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_lists: list[list[str]] = []  # an audit hook cannot be removed: it does nothing while this is empty


def _guard(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        for asked in _lists:
            asked.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")
            raise OSError("the network is closed")


sys.addaudithook(_guard)


@contextmanager
def closed_network() -> Iterator[list[str]]:
    """Yield the list of what is asked for in the context."""
    _lists.append([])
    try:
        yield _lists[-1]
    finally:
        _lists.pop()
