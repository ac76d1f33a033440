"""SIGTERM and Ctrl-C: the first asks for an orderly end, the second ends the process at once."""

import asyncio
import signal
import sys
from collections.abc import Callable


def stop_on_signal(before_exit: Callable[[], None] = lambda: None) -> asyncio.Event:
    """An event that the first signal sets; at the second, before_exit is called and the process exits."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            before_exit()
            sys.exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop
