"""Reproduces RecSAE (arXiv 2411.06112), called P4 here: descriptions, silencing, tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from training.arrays import Ints
from training.concepts.describing.dictionary import (
    CONFIDENT,
    DictionaryOptions,
    Entry,
    Samples,
    make_dictionary,
)
from training.concepts.describing.metadata import MetadataDescriber, Rule
from training.concepts.effect import Audience
from training.concepts.mapping.purity import monosemanticity
from training.concepts.membership import Membership
from training.evaluation.interpretability import Representation, representations
from training.evaluation.report import Estimate, Plot, Table
from training.evaluation.steering import edited_lists
from training.measures import metrics
from training.measures.metrics import Figures
from training.run import Run
from training.studies.papers.paper import (
    Findings,
    Groups,
    Paper,
    Parts,
    caption,
    curve,
    joined,
    shown,
    tagged,
)
from training.studies.papers.tuning import BOOST, BOOSTS, WEIGHTS, tuning_gains

MOST_SILENCED = 200
"""Neurons that are silenced, at most."""
_SAE = (
    "--sae=topk",
    "--sae-k=8",
    "--sae-expansion=32",
    "--sae-auxk-weight=0.03125",
    "--recommender-d=64",
)
_IN_ORDER = (
    "--split-kind=leave-one-out",
    "--recommender-blocks=1",
    "--recommender-heads=1",
    "--max-length=20",
)


class Described(NamedTuple):
    """Entries and the rules behind them, by neuron."""

    entries: list[Entry]
    rules: dict[int, Rule]


class _Remembering(MetadataDescriber):
    """Describes by metadata, and keeps each neuron's rule."""

    def __init__(self, members: Membership) -> None:
        super().__init__(members.names, members.matrix)
        self.rules: dict[int, Rule] = {}

    def describe(self, neuron: int, samples: Samples) -> Rule | None:
        rule = super().describe(neuron, samples)
        if rule is not None:
            self.rules[neuron] = rule
        return rule


def measure(run: Run, users: Ints) -> dict[str, Any]:
    """Measures the dictionary, the effect of silencing confident neurons, and targeted tuning.

    Raises:
        DataError: the items have no attributes.
    """
    members = tagged(run, "P4 describes neurons by them")
    items = np.flatnonzero(run.catalogue.popularity >= run.config.concepts.min_popularity)
    dictionary = {}
    for part in reversed(representations(run, run.config.seed)):  # the SAE last: described is its
        described = describe(part, members, items, run.config.seed)
        dictionary[part.name] = _dictionary(run, part, members, items, described)
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    targets = run.split.targets(users)
    return {
        "dictionary": dict(reversed(dictionary.items())),
        "silenced": silenced(
            audience, described, targets, np.random.default_rng([run.config.seed, 0xAB])
        ),
        "tuning": tuning_gains(run, audience, members, targets),
    }


def describe(part: Representation, members: Membership, items: Ints, seed: int) -> Described:
    """Describes the neurons that enough of the items fire."""
    describer = _Remembering(members)
    rng = np.random.default_rng([seed, 0xD1])
    made = make_dictionary(part.codes[items], items, describer, DictionaryOptions(), rng)
    return Described(made.entries, describer.rules)


def _dictionary(
    run: Run, part: Representation, members: Membership, items: Ints, described: Described
) -> dict[str, Any]:
    """Summarises over the neurons; attributes and vectors are the coherence of the items' own."""
    V = run.recommender.item_matrix().V.detach().numpy()[items]
    confidence = np.array([entry.confidence for entry in described.entries])
    confident = [entry for entry in described.entries if entry.confidence >= CONFIDENT]
    codes = part.codes[items]
    return {
        "described": Estimate(len(described.entries), None),
        "confident": Estimate(len(confident), None),
        "confident_share": Estimate.over_users(np.where(confidence >= CONFIDENT, 1.0, 0.0)),
        "confidence": Estimate.over_users(confidence),
        "precision": Estimate.over_users(np.array([entry.precision for entry in confident])),
        "recall": Estimate.over_users(np.array([entry.recall for entry in confident])),
        "attributes": Estimate.over_users(
            monosemanticity(codes, members.matrix.T.toarray()[items])
        ),
        "vectors": Estimate.over_users(monosemanticity(codes, V)),
    }


def silenced(
    audience: Audience, described: Described, targets: csr_matrix, rng: np.random.Generator
) -> dict[str, Any]:
    """Sets confident neurons to 0 for the users in whom they fire, and compares with other neurons.

    The other is another active neuron of the same user. At most 200 neurons, those that fire for
    most users; means over a user's neurons, then over users. share is the exposure share of the
    items that fit the description.
    """
    fires = (audience.code > 0).numpy()
    confident = [entry.neuron for entry in described.entries if entry.confidence >= CONFIDENT]
    chosen = sorted(confident, key=lambda neuron: -fires[:, neuron].sum())[:MOST_SILENCED]
    chosen = [neuron for neuron in chosen if fires[:, neuron].any()]
    measured: list[tuple[Ints, Figures]] = []
    for neuron in chosen:
        users = np.flatnonzero(fires[:, neuron])
        part = audience.rows(users)
        flags = described.rules[neuron].flags
        others = np.where(np.arange(fires.shape[1]) == neuron, False, fires[users])
        drawn = np.where(others, rng.random(others.shape), -1.0).argmax(axis=1)
        before = part.lists()
        after = edited_lists(part, _without(part.code, np.full(len(users), neuron)))
        control = edited_lists(part, _without(part.code, drawn))
        share = metrics.exposure_share(before, flags)
        ndcg = metrics.ndcg(before, targets[users])
        figures = (
            share,
            metrics.exposure_share(after, flags) - share,
            metrics.exposure_share(control, flags) - share,
            metrics.overlap(before, after),
            metrics.ndcg(after, targets[users]) - ndcg,
        )
        measured.append((users, np.stack(figures)))
    names = ("share", "change", "another_neuron", "overlap", "ndcg_change")
    means = _means(measured, len(fires), len(names))
    return {"neurons": Estimate(len(chosen), None)} | dict(zip(names, means, strict=True))


def _without(code: Tensor, neurons: Ints) -> Tensor:
    return code.scatter(1, torch.from_numpy(neurons)[:, None], 0.0)


def _means(measured: list[tuple[Ints, Figures]], users: int, count: int) -> list[Estimate]:
    """Averages figures [count, rows] of some users each over the users who have any."""
    total = np.zeros((count, users))
    times = np.zeros(users)
    for rows, figures in measured:
        total[:, rows] += figures
        times[rows] += 1
    means = total[:, times > 0] / times[times > 0]
    return [Estimate.over_users(row) for row in means]


THEIRS = {"BPR-MF": "+48 % at -1 %", "SASRec": "+21 % at -1.6 %"}
"""RecFTT on ML-1M: change of N@10 of the target's interactions, at that of all."""
_FIGURES = {
    "described": ("described and tested", "2026", ".0f"),
    "confident": (f"confidence >= {CONFIDENT:g}", "398", ".0f"),
    "confident_share": ("share of these", ".196", ".3f"),
    "confidence": ("mean confidence", ".593", ".3f"),
    "precision": ("precision of the confident, at the true rate", "-", ".3f"),
    "recall": ("recall of the confident", "-", ".3f"),
    "attributes": ("coherence of the items' attributes", "-", ".3f"),
    "vectors": ("coherence of the items' vectors", "-", ".3f"),
}
_SILENCED = {
    "neurons": ("confident neurons silenced", ".0f"),
    "share": ("exposure share of what they stand for", ".4f"),
    "change": ("its change when they are silent", ".4f"),
    "another_neuron": ("its change when another active neuron is", ".4f"),
    "overlap": ("overlap of the lists", ".4f"),
    "ndcg_change": ("change of nDCG@20", ".4f"),
}


def _parts(groups: Groups) -> Parts:
    tables = []
    curves = []
    for (_, setting), findings in groups.items():
        about = caption(findings)
        dictionary = findings[0].figures["dictionary"]
        rows = [
            [
                text,
                theirs,
                *(shown(findings, "dictionary", kind, name, form=form) for kind in dictionary),
            ]
            for name, (text, theirs, form) in _FIGURES.items()
        ]
        tables.append(
            Table(f"{about}: the dictionary", ("", "paper, SASRec on ML-1M", *dictionary), rows)
        )
        rows = [
            [text, shown(findings, "silenced", name, form=form)]
            for name, (text, form) in _SILENCED.items()
        ]
        tables.append(Table(f"{about}: silencing, top 20", ("", "ours"), rows))
        tables += _tuning_tables(findings, about, THEIRS[setting])
        for method, levels in findings[0].figures["tuning"]["ways"].items():
            path = ("tuning", "ways", method)
            curves.append(
                curve(f"{setting}: {method}", findings, path, levels, "overall", "target")
            )
    return Parts(tables, Plot("change of nDCG@10 on all targets", "on the concept's", curves))


def _tuning_tables(findings: Sequence[Findings], about: str, theirs: str) -> Iterator[Table]:
    """Yields one table for the strengths of each kind of method."""
    methods = findings[0].figures["tuning"]["ways"]
    concepts = ", ".join(findings[0].figures["tuning"]["concepts"])
    title = f"{about}: change of nDCG@10 on the concept's targets / on all, means over {concepts}"
    for strengths, names in (
        (WEIGHTS, [method for method in methods if method != BOOST]),
        (BOOSTS, [BOOST]),
    ):
        labels = [f"{strength:g}" for strength in strengths]
        rows = [[method, *(_pair(findings, method, label) for label in labels)] for method in names]
        yield Table(title, (f"paper: {theirs}", *labels), rows)


def _pair(findings: Sequence[Findings], method: str, label: str) -> str:
    estimates = (
        joined(findings, "tuning", "ways", method, label, name) for name in ("target", "overall")
    )
    return " / ".join(f"{one.mean:+.1%} ± {one.error or 0:.1%}" for one in estimates)


_DIFFERS = """\
- The paper uses SASRec (one block, one head, width 64, the newest 20 items) and BPR-MF on all of
  MovieLens 1M. Here it is the part of the data that `--data-where` names, because the rest lacks
  times and ratings. BPR-MF is tested on users that are held out and folded in, SASRec
  leave-one-out, so they have separate tables.
- The SAE has 32 neurons a dimension, k = 8 and AuxK of weight 1/32, as in the paper, but is
  trained as our others are: on random sub-histories, with larger steps.
- The paper's describer and judge are a language model that reads histories. Here attribute values
  are enriched in ten items that fire a neuron and tested on others, each a history of its own, so
  only neurons that ten items fire strongly are described. Confidence weighs silent and firing
  samples alike; precision is computed at the neuron's true rate. Two columns show chance: an SAE
  of the same shape with random weights, and the raw dimensions. ± of the dictionary is over the
  neurons of a single seed.
- Coherence is the mean cosine of the items that fire a neuron, weighted by activation (the score
  of arXiv 2606.29341), once of their attributes and once of the recommender's own vectors.
- Silenced are, among the neurons of confidence 0.8 or more, those that fire for most users, each
  in the users in whom it fires, in mode RESIDUAL; for comparison, another neuron that is active
  in the same user is silenced.
- RecFTT's multiplier and bias of each neuron are learned here on validation users, by
  cross-entropy over all items of all held-out ones + weight x of the concept's; weight 0 asks for
  no concept. Scores are scaled first, so that this loss gains nothing from larger ones. The
  neurons are those whose silence changes the loss on the concept's items most. The paper's base
  and its choice of the target are not known to us. The tag boost adds a number of standard
  deviations of a user's scores to the concept's items, and learns nothing."""

RECSAE = Paper(
    "RecSAE: a dictionary of tested descriptions, ablation and targeted tuning",
    "arXiv 2411.06112",
    {
        "BPR-MF": ("--recommender=bpr", *_SAE),
        "SASRec": ("--recommender=sasrec", *_IN_ORDER, *_SAE),
    },
    measure,
    _parts,
    _DIFFERS,
)
