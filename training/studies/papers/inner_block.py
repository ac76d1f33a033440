"""Reproduces "SAEs for Sequential Recommendation Models" (arXiv 2507.12202), called P2 here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import normalize

from training.arrays import Bools, Ints
from training.concepts.effect import Audience
from training.concepts.mapping.association import area_under_curve, neuron_aucs
from training.concepts.mapping.evidence import Evidence
from training.concepts.membership import Membership
from training.evaluation.interpretability import sides, untrained_like
from training.evaluation.report import Estimate, Plot, Table
from training.evaluation.steering import neuron_unit
from training.histories import Histories, stacked
from training.measures import metrics
from training.measures.metrics import Figures, Lists
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

STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
DRAWS = 4
"""Random prefixes of each training user's history."""
FOLDS = 10
"""Groups of the judging users, over which errors are computed."""
SAE = "SAE"
UNTRAINED = "untrained SAE"
RAW = "raw dimensions"
NEURON = "the attribute's neuron"
DIMENSION = "the attribute's raw dimension"
MEANS = "difference of the mean states"
RANDOM = "a random neuron"
_IN_ORDER = ("--split-kind=leave-one-out", "--max-length=50")


class States(NamedTuple):
    """Hidden states z [n, d] after prefixes of histories, and the newest item's attributes.

    members float32 [n_attributes, n]; fold int64 [n], by user, -1 for the users that choose.
    """

    z: Tensor
    members: csr_matrix
    fold: Ints


def hidden_states(run: Run, members: Membership, rng: np.random.Generator) -> States:
    """Embeds four random prefixes of each training user's history.

    Half of the users choose, half judge.
    """
    histories = run.split.histories(run.split.train)
    prefixes: Histories = stacked([histories.prefixes(rng) for _ in range(DRAWS)])
    newest = prefixes.items[prefixes.offsets[1:] - 1]
    fold = rng.permutation(histories.size) % (2 * FOLDS)
    fold = np.where(fold < FOLDS, fold, -1)
    z = run.recommender.embed(prefixes, run.config.max_length)
    return States(z, members.matrix[:, newest], np.tile(fold, DRAWS))


class Best(NamedTuple):
    """The best column of each attribute, chosen on some users, and its AUCs in the others' folds.

    columns int64 [n_attributes], aucs [n_attributes, folds].
    """

    columns: Ints
    aucs: Figures


def best_columns(codes: csr_matrix, states: States) -> Best:
    """Finds the best columns of the states' codes [n, n_columns]."""
    chooses = np.flatnonzero(states.fold < 0)
    told = Evidence.whole(states.members[:, chooses], codes[chooses])
    columns = np.nan_to_num(neuron_aucs(told), nan=0.5).argmax(axis=1)
    aucs = np.full((len(columns), FOLDS), np.nan)
    for fold in range(FOLDS):
        rows = np.flatnonzero(states.fold == fold)
        levels = codes[rows].tocsc()
        flags = states.members[:, rows].toarray() > 0
        for row, column in enumerate(columns):
            aucs[row, fold] = area_under_curve(levels[:, [column]].toarray()[:, 0], flags[row])
    return Best(columns, aucs)


def measure(run: Run, users: Ints) -> dict[str, Any]:
    """Measures the best neuron's AUC for each attribute, and the effect of moving along it.

    Raises:
        DataError: the items have no attributes.
    """
    members = tagged(run, "P2 looks for them in neurons")
    rng = np.random.default_rng([run.config.seed, 0x2])
    states = hidden_states(run, members, rng)
    code = run.sae.encode(states.z)
    parts = {
        SAE: csr_matrix(code.numpy()),
        UNTRAINED: csr_matrix(untrained_like(run.sae, run.config.seed).encode(states.z).numpy()),
        RAW: sides(states.z),
    }
    best = {name: best_columns(codes, states) for name, codes in parts.items()}
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    targets = run.split.targets(users)
    return {
        "nDCG": Estimate.over_users(metrics.ndcg(audience.lists(), targets)),
        "cost": Estimate(run.metrics["reconstruct_ndcg_loss@20"], None),
        "auc": {
            name: Estimate.over_users(np.nanmean(own.aucs, axis=0)) for name, own in best.items()
        },
        "attributes": {
            name: {part: Estimate.over_users(own.aucs[row]) for part, own in best.items()}
            for row, name in enumerate(members.names)
        },
        "ways": _controlled(audience, members, targets, _directions(run, states, code, best, rng)),
    }


class Direction(NamedTuple):
    """Unit vectors float32 [d] by title, and the length of a unit of strength."""

    vectors: dict[str, Tensor]
    unit: float


def _directions(
    run: Run, states: States, code: Tensor, best: dict[str, Best], rng: np.random.Generator
) -> list[Direction]:
    """Returns each attribute's vectors, all with the typical activation of its neuron as unit."""
    axes = torch.eye(run.sae.d)
    axes = torch.cat([axes, -axes])
    fires = np.flatnonzero((code > 0).any(dim=0).numpy())
    y = run.sae.normalised(states.z)
    directions = []
    for row, (neuron, axis) in enumerate(zip(best[SAE].columns, best[RAW].columns, strict=True)):
        has = torch.from_numpy(states.members[row].toarray()[0] > 0)
        vectors = {
            NEURON: run.sae.W_dec[neuron],
            DIMENSION: axes[axis],
            MEANS: normalize(y[has].mean(dim=0) - y[~has].mean(dim=0), dim=0),
            RANDOM: run.sae.W_dec[rng.choice(fires)],
        }
        directions.append(Direction(vectors, neuron_unit(code[:, neuron].numpy())))
    return directions


def _controlled(
    audience: Audience,
    members: Membership,
    targets: csr_matrix,
    directions: Sequence[Direction],
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Measures what moving z along each kind of vector does at each strength.

    Means over the attributes, then over users.
    """
    flags = members.matrix.toarray() > 0
    before = audience.lists()
    shares = np.stack([metrics.exposure_share(before, own) for own in flags])
    relevance = metrics.ndcg(before, targets)
    measured: dict[str, dict[str, dict[str, Estimate]]] = {}
    for method in directions[0].vectors:
        for strength in STRENGTHS:
            effects = []
            for row, (vectors, unit) in enumerate(directions):
                lists = _moved(audience, strength * unit * vectors[method])
                effects.append(_effect(row, shares, before, lists, flags, relevance, targets))
            means = [Estimate.over_users(mean) for mean in np.stack(effects).mean(axis=0)]
            measured.setdefault(method, {})[f"{strength:g}"] = dict(
                zip(_COLUMNS, means, strict=True)
            )
    return measured


def _moved(audience: Audience, move: Tensor) -> Lists:
    return audience._replace(z=audience.z + audience.sae.scale(audience.z) * move).lists()


def _effect(
    row: int,
    shares: Figures,
    before: Lists,
    after: Lists,
    flags: Bools,
    relevance: Figures,
    targets: csr_matrix,
) -> Figures:
    """Measures one move: [4, users].

    Rows: the change of the attribute's exposure share, the mean size of the others' changes, the
    overlap, and nDCG's change. shares float64 [n_attributes, users] are those before.
    """
    change = np.stack([metrics.exposure_share(after, own) for own in flags]) - shares
    others = np.abs(np.delete(change, row, axis=0)).mean(axis=0)
    return np.stack(
        [
            change[row],
            others,
            metrics.overlap(before, after),
            metrics.ndcg(after, targets) - relevance,
        ]
    )


_COLUMNS = {
    "own": "change of the attribute's exposure share",
    "others": "of another's, size",
    "overlap": "overlap of the lists",
    "ndcg": "change of nDCG@20",
}


def _parts(groups: Groups) -> Parts:
    tables = []
    curves = []
    for findings in groups.values():
        tables += [_aucs(findings), _control(findings)]
        for method, levels in findings[0].figures["ways"].items():
            curves.append(curve(method, findings, ("ways", method), levels, "own", "ndcg"))
    return Parts(
        tables, Plot("change of the attribute's exposure share", "change of nDCG@20", curves)
    )


def _aucs(findings: Sequence[Findings]) -> Table:
    names = (SAE, UNTRAINED, RAW)
    rows = [["all attributes", "higher", *(shown(findings, "auc", name) for name in names)]]
    for attribute in findings[0].figures["attributes"]:
        path = ("attributes", attribute)
        rows.append([attribute, "", *(shown(findings, *path, name) for name in names)])
    title = f"{caption(findings)}: AUC of the best column, chosen on half of the training users"
    columns = ("attribute of the newest item", "paper: SAE against raw", *names)
    return Table(title, columns, rows)


def _control(findings: Sequence[Findings]) -> Table:
    rows = [
        [
            method,
            label,
            *(shown(findings, "ways", method, label, name, form=".4f") for name in _COLUMNS),
        ]
        for method, levels in findings[0].figures["ways"].items()
        for label in levels
        if label != "0"
    ]
    own = joined(findings, "nDCG")
    cost = joined(findings, "cost")
    title = (
        f"{caption(findings)}: moving the state along one direction; unsteered nDCG@20 {own:.4f}, "
        f"the SAE's reconstruction costs {cost.mean:.1%}"
    )
    return Table(title, ("along", "strength, TYPICAL", *_COLUMNS.values()), rows)


_DIFFERS = """\
- We know only the claims of the paper's abstract: that learned directions in a transformer's
  inner layer are more interpretable than its dimensions, and that they control lists. Its figures
  are not repeated here.
- The recommender is SASRec of two blocks with full cross-entropy, on the newest 50 items,
  leave-one-out; the SAE reads and edits the state of the newest slot after the first block, and
  the second block follows.
- An attribute's AUC tells whether the newest item has it, at four random places of each training
  user's history. Half of these users choose the column, the other half judge it; ± is over ten
  groups of them.
- A raw dimension counts as two columns, because a neuron fires one way; states are divided by
  their norm.
- An attribute's neuron is the one of the best AUC. One unit of strength is the 95th percentile of
  its positive activations; moves along all four directions have the same length, in mode
  RESIDUAL. The difference of the mean states of items with and without the attribute is a dense
  direction, not a neuron."""

INNER_BLOCK = Paper(
    "SAEs for Sequential Recommendation Models: neurons inside a transformer",
    "arXiv 2507.12202",
    {"block1": ("--recommender=sasrec", "--recommender-hook-point=block1", *_IN_ORDER)},
    measure,
    _parts,
    _DIFFERS,
)
