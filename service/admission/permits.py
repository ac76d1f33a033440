"""A permit or an immediate refusal: nothing waits in a queue without bound."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from service.errors import Overloaded


class Priority(Enum):
    """Who is refused first. The value is the share of the permits that requests of this priority may fill."""

    LOW = 0.5
    NORMAL = 0.9
    HIGH = 1.0


class Admission:
    """Counts requests in flight.

    Args:
        permits: Most requests in flight at once.
    """

    def __init__(self, permits: int) -> None:
        self.permits = permits
        self.in_flight = 0

    @contextmanager
    def permit(self, priority: Priority = Priority.NORMAL, count: int = 1) -> Iterator[None]:
        """Holds as many permits as the call does things at once.

        Raises:
            Overloaded: not enough are left for this priority.
        """
        if self.in_flight and self.in_flight + count > max(1, int(self.permits * priority.value)):
            raise Overloaded(
                f"{self.in_flight} requests are in flight, no permit is left for {priority.name} priority"
            )
        self.in_flight += count
        try:
            yield
        finally:
            self.in_flight -= count
