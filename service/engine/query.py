"""Defines a query: one valid request for a list, resolved against one bundle."""

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
        bundle: The bundle, taken once: a label that moves meanwhile does not change the request.
        n: Number of recommendations.
        user_id: The user; "" for nobody.
        history: Events of the request, oldest first; None uses the stored history.
        plan: The steering.
        item_filter: Conditions on the items.
        exclude: Ids of items that must not be returned.
        page: The beginning of the page; None for a request that cannot be paged.
        explain: Whether reasons are requested.
        include_unsteered: Whether the unsteered list is requested.
        include_report: Whether a report is requested.
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
        """Whether the unsteered list is needed as well."""
        return self.include_unsteered or self.include_report
