"""What is asked: one valid request for a list, resolved against one bundle."""

from dataclasses import dataclass
from enum import Enum

from service.bundle import Bundle
from service.catalogue import Filter
from service.histories import Event
from service.paging import Page
from service.steering import RawEdit


class Mode(Enum):
    """How the edited code returns into the model; see the API's Mode."""

    RESIDUAL = "residual"
    RECONSTRUCT = "reconstruct"


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's steering, resolved against one bundle.

    Attributes:
        edits: As in the request, so that reports line up with it; identities included.
        mode: How the edited code returns.
        concepts: Names that the report gives shares of.
        degraded: True if steering was asked for but cannot be applied.
    """

    edits: tuple[RawEdit, ...] = ()
    mode: Mode = Mode.RESIDUAL
    concepts: tuple[str, ...] = ()
    degraded: bool = False

    @property
    def acts(self) -> bool:
        """True if any user's list could differ. Identities are dropped, so that they cost nothing."""
        return self.mode is Mode.RECONSTRUCT or any(not edit.is_identity for edit in self.edits)


NO_PLAN = Plan()
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
