"""Handles SIGTERM and Ctrl-C: the first one starts an orderly stop, the second ends the process."""

import asyncio
import signal
import sys
from collections.abc import Callable


def stop_on_signal(before_exit: Callable[[], None] = lambda: None) -> asyncio.Event:
    """Returns an event that the first signal sets.

    Args:
        before_exit: Is called at the second signal, before the process exits.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            before_exit()
            sys.exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop
