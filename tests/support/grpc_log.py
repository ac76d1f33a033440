"""Silences one harmless message of grpcio in the tests' log."""

import logging


def drop_poller_message(record: logging.LogRecord) -> bool:
    """Returns whether a record of the asyncio logger is to be logged.

    grpcio before 1.80 polls one file descriptor from every event loop of a process. Where a
    test's loop and its server's loop wake for the same event, the slower one reads nothing and
    asyncio logs a BlockingIOError. The event is handled all the same, and a server of its own
    process has only one loop.
    """
    error = record.exc_info[1] if record.exc_info else None
    is_poller = "PollerCompletionQueue._handle_events" in record.getMessage()
    return not (is_poller and isinstance(error, BlockingIOError))


def silence_poller() -> None:
    """Drops the message for the rest of this process."""
    logging.getLogger("asyncio").addFilter(drop_poller_message)
