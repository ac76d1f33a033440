"""What is asked: one valid request for a list, resolved against one bundle."""

from dataclasses import dataclass

from service.bundle.bundle import Bundle
from service.bundle.history import Event
from service.engine.page import Page
from service.retrieval.filter import Filter
from service.steering.plan import NO_PLAN, Plan

NO_FILTER = Filter()


@dataclass(frozen=True, slots=True)
class Query:
    """A valid request for one list.

    Attributes:
        bundle: Taken once: a label that moves meanwhile does not touch the request.
        n: How many recommendations.
        user_id: "" for nobody.
        history: Given events, oldest first; None to use the stored history.
        exclude: Item ids not to be returned.
        page: What earlier pages returned, which is not returned again.
        explain: Whether reasons are wanted.
    """

    bundle: Bundle
    n: int
    user_id: str = ""
    history: tuple[Event, ...] | None = None
    plan: Plan = NO_PLAN
    item_filter: Filter = NO_FILTER
    exclude: tuple[str, ...] = ()
    page: Page | None = None
    explain: bool = False
    include_unsteered: bool = False
    include_report: bool = False

    @property
    def compares(self) -> bool:
        """True if the unsteered list is needed beside the steered one."""
        return self.include_unsteered or self.include_report
