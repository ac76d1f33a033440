"""Gives a request a permit or refuses it at once, so that no queue grows without bound."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from service.errors import Overloaded


class Priority(Enum):
    """A request's priority, by which it is refused when permits are scarce.

    The value is the share of all permits that may be in use when such a request is let in.
    """

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
        """Holds permits while a request is answered.

        An idle server lets every request in, however many permits it takes.

        Args:
            priority: The request's.
            count: Permits to hold, one for each list that is computed at once.

        Raises:
            Overloaded: not enough permits are left for this priority.
        """
        limit = max(1, int(self.permits * priority.value))
        if self.in_flight and self.in_flight + count > limit:
            raise Overloaded(
                f"expected at most {limit} requests in flight for {priority.name} priority,"
                f" found {self.in_flight}: no permit is left"
            )
        self.in_flight += count
        try:
            yield
        finally:
            self.in_flight -= count
