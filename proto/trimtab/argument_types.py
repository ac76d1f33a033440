"""Types of the arguments of the client's methods, each argument documented once."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypeAlias, TypedDict

from trimtab.share_text import ShareBound
from trimtab.v1.recommendation_pb2 import Event, Filter, History, Interaction
from trimtab.v1.steering_pb2 import Edit, Steering, TargetShare

Id: TypeAlias = str | int
"""Id of a user or an item. Integers are converted to text."""
Edits: TypeAlias = Mapping[Id, float] | Iterable[str | Edit] | str
"""Edits as {"Film-Noir": 1, "#123": -0.5}, as ["Film-Noir:set=2", "#123=-0.3raw"] or as Edit
messages. An integer as a key is a neuron. The grammar is in `trimtab.steer_text`."""
Steer: TypeAlias = Steering | Edits
"""Edits, or a whole Steering message."""
Shares: TypeAlias = Mapping[str, tuple[ShareBound, ShareBound]] | Iterable[str | TargetShare] | str
"""Target shares as {"Film-Noir": (0.3, None), "Drama": (None, "0.5x")}: the smallest and the
largest share of the list's items, each a number from 0 to 1, a multiple of the unsteered list's
share such as "0.5x", or None for no bound. Also ["Film-Noir>=0.3"] or TargetShare messages. The
grammar is in `trimtab.share_text`."""
Values: TypeAlias = str | float | Iterable[str] | tuple[float | None, float | None]
"""Values of a condition: one text, several texts (the item needs one of them), a number, or a pair
of numbers: a range that includes both ends, where None is no bound."""
Where: TypeAlias = Filter | Mapping[str, Values]
"""Conditions by attribute, or a whole Filter message."""
HistoryLike: TypeAlias = History | Iterable[Id | Event]
"""Item ids or events, oldest first, or a whole History message."""
Time: TypeAlias = datetime | float
"""A datetime with a time zone, or seconds since 1970."""
InteractionLike: TypeAlias = Interaction | tuple[Id, Id] | Mapping[str, object]
"""An Interaction message, a pair (user id, item id), or the keyword arguments of
`trimtab.interaction`."""


class SimilarItemsOptions(TypedDict, total=False):
    """Keyword arguments that `similar_items` and `recommend` have in common."""

    n: int
    """Number of items, from 1 to the server's maximum (1,000). Default: 10."""
    steer: Steer | None
    """Edits, or a whole Steering message (see `trimtab.steering`). Default: no steering."""
    filter: Where | None
    """Conditions that every returned item fulfils, or a whole Filter message. Default: none."""
    filter_out: Mapping[str, Values] | None
    """Conditions of which no returned item fulfils any. Default: none."""
    bundle: str
    """Id or label of a bundle. Default: the server's default bundle."""


class RecommendOptions(SimilarItemsOptions, total=False):
    """Keyword arguments of `recommend` and `trimtab.recommend_request`."""

    history: HistoryLike | None
    """Item ids or events, oldest first; replaces the stored history for this call. Default: the
    stored history."""
    shares: Shares
    """Target shares of concepts, added to those of a Steering message. Default: none."""
    max_relevance_loss: float | None
    """Largest relevance loss that steering may cause, from 0 to 1; overrides the budget of a
    Steering message. Default: no limit."""
    mode: str | int | None
    """Way the edited code returns into the model: "residual" or "reconstruct"; overrides the mode
    of a Steering message. Default: "residual"."""
    exclude: Iterable[Id]
    """Ids of items that are not returned, at most 10,000. Default: none."""
    explain: bool
    """True: each item has reasons, which sum to its score. Default: False."""
    include_unsteered: bool
    """True: the reply contains the unsteered list and each item's rank in it. Default: False."""
    include_report: bool
    """True: the reply contains the report of what steering did. Default: False."""
    request_id: str
    """Id that the reply repeats. Default: the server creates one."""
    unit_id: str
    """Unit that experiments hash. Default: the user id."""
    context: Mapping[str, str] | None
    """Facts about the request, which the conditions of policies read. Default: none."""
    page_token: str
    """`next_page_token` of the page before. Default: the first page."""
    priority: str | int | None
    """Who is refused first when the server is full: "low", "normal" or "high". Default:
    "normal"."""
