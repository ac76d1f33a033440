"""Describes neurons by a language model, which also predicts the items that fit a description.

Sources: a model that reads the items, arXiv 2606.29341; describer and predictor, arXiv 2411.06112.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from training.arrays import Bools, Ints
from training.concepts.describing.chat import Chat
from training.concepts.describing.dictionary import Samples
from training.interactions import Catalogue

LONGEST_TEXT = 200
"""Characters of a description."""
_LONGEST_ITEM = 300

_DESCRIBE = (
    "You name what one neuron of a recommender responds to. You get items that activate it, with "
    "strengths from 1 to 10, and items that do not. Answer with a JSON object and nothing else: "
    '{"description": "<what the first have in common and the others lack, in at most ten words>"}'
)
_PREDICT = (
    "You are told what one neuron of a recommender responds to, and get numbered items. Answer "
    "with a JSON "
    'object and nothing else: {"active": [<the numbers of the items that fit>]}'
)


@dataclass(frozen=True)
class LlmDescription:
    """A description as text, and the model that predicts which items fit it."""

    text: str
    chat: Chat
    items: Sequence[str]
    """The catalogue's items in words."""

    def predict(self, items: Ints) -> Bools:
        """Asks the model which items fit."""
        listed = "\n".join(
            f"{number}. {self.items[item]}" for number, item in enumerate(items, start=1)
        )

        def read(answer: dict[str, Any]) -> Bools:
            fires = np.zeros(len(items), dtype=bool)
            numbers = answer.get("active")
            if not isinstance(numbers, list):
                raise ValueError(f"active: expected a list, found {str(answer)[:80]}")
            for number in numbers:
                if not isinstance(number, int) or not 1 <= number <= len(items):
                    raise ValueError(f"item: expected 1 to {len(items)}, found {number!r}")
                fires[number - 1] = True
            return fires

        return self.chat.ask(_PREDICT, f"It responds to: {self.text}\n\n{listed}", read)


class LlmDescriber:
    """Asks a model about the items of a catalogue.

    Args:
        chat: who is asked.
        catalogue: its titles and attributes are what the model reads.
    """

    name = "llm"

    def __init__(self, chat: Chat, catalogue: Catalogue) -> None:
        self._chat = chat
        self._items = item_texts(catalogue)

    @property
    def provenance(self) -> str:
        """Returns the source of the descriptions, for labels."""
        return f"described and told apart by {self._chat.options.model}"

    def describe(self, neuron: int, samples: Samples) -> LlmDescription:
        """Describes a neuron from its items' titles and attributes."""
        del neuron  # only the samples are used
        on = [
            f"{level}: {self._items[item]}"
            for item, level in zip(samples.on, samples.levels, strict=True)
        ]
        off = [self._items[item] for item in samples.off]
        question = "\n".join(["Active:", *on, "", "Not active:", *off])
        return LlmDescription(
            self._chat.ask(_DESCRIBE, question, _description), self._chat, self._items
        )


def item_texts(catalogue: Catalogue) -> list[str]:
    """Returns each item's title (or id) and attributes, in words."""
    names = list(catalogue.attributes)
    shown = catalogue.items.select(
        pl.coalesce(pl.col("title"), pl.col("item_id")).alias("title"),
        *(pl.col(name) for name in names),
    )
    texts = []
    for title, *values in shown.iter_rows():
        known = [
            f"{name}: {', '.join(value) if isinstance(value, list) else value}"
            for name, value in zip(names, values, strict=True)
            if value not in (None, "", [])
        ]
        texts.append(
            f"{title} ({'; '.join(known)})"[:_LONGEST_ITEM] if known else str(title)[:_LONGEST_ITEM]
        )
    return texts


def _description(answer: dict[str, Any]) -> str:
    text = answer.get("description")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"description: expected a text, found {str(answer)[:80]}")
    return " ".join(text.split())[:LONGEST_TEXT]
