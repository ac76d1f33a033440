"""Measures what neurons mean, for the SAE, the raw dimensions and an untrained SAE.

Everything is measured on the codes of one-item histories of the items that enough training users
have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.arrays import Bools, Floats, Ints
from training.concepts.describing.dictionary import DictionaryOptions, make_dictionary
from training.concepts.describing.metadata import MetadataDescriber
from training.concepts.fitting import item_codes
from training.concepts.mapping.association import weights_aucs
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.probes import k_sparse_probe
from training.concepts.mapping.purity import concept_entropy, monosemanticity, neuron_entropy
from training.concepts.membership import Membership, memberships
from training.errors import RunError
from training.histories import Histories
from training.run import Run
from training.saes.base import SparseAutoencoder
from training.saes.topk import TopK

PROBE_SIZES = (1, 2, 5, 10, 50)
"""Neurons of the probes."""
SAME_COSINE = 0.7
"""Cosine from which two neurons count as the same."""


class Representation(NamedTuple):
    """Numbers that represent items, each with a direction in the space of user embeddings.

    codes float32 [n_items, n_neurons]; effects float32 [n_neurons, n_items], unit rows: what a
    direction does to the items' scores, centred, so that it can be compared between recommenders.
    """

    name: str
    codes: csr_matrix
    effects: Floats


class Interpretability(NamedTuple):
    """Figures of one representation of one run.

    probe_aucs[i] is the mean over concepts of the AUC on held-out items of probes of PROBE_SIZES[i]
    neurons. confident_share counts neurons whose description has confidence 0.8 or more on unseen
    items, described_share neurons that enough items fire for a description, both among all that
    fire. confidence is the mean of the described; precision and recall are means of the confident.
    Entropies are from 0 (pure) to 1.
    """

    representation: str
    neurons: int
    alive_share: float
    probe_aucs: list[float]
    described_share: float
    confident_share: float
    confidence: float
    precision: float
    recall: float
    monosemanticity: float
    neuron_entropy: float
    concept_entropy: float


def representations(run: Run, seed: int = 0) -> list[Representation]:
    """Returns the codes of the SAE and of an untrained one of its shape, and the raw dimensions.

    A raw dimension counts as two neurons, its positive and its negative side, because an SAE's fire
    one way.
    """
    untrained = untrained_like(run.sae, seed)
    z = run.recommender.embed(
        Histories.single_items(run.recommender.n_items), run.config.max_length
    )
    axes = torch.eye(run.recommender.d)
    length = run.config.max_length
    return [
        Representation(
            "SAE", item_codes(run.recommender, run.sae, length), _effects(run, run.sae.W_dec)
        ),
        Representation(
            "untrained SAE",
            item_codes(run.recommender, untrained, length),
            _effects(run, untrained.W_dec),
        ),
        Representation("raw dimensions", sides(z), _effects(run, torch.cat([axes, -axes]))),
    ]


def untrained_like(sae: SparseAutoencoder, seed: int) -> SparseAutoencoder:
    """Returns a TopK SAE of the same shape, with the random weights that training starts from."""
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    untrained = SparseAutoencoder(sae.d, sae.n_neurons, TopK(min(sae.k, sae.n_neurons)))
    torch.random.set_rng_state(generator)
    return untrained.eval().requires_grad_(False)


def sides(z: torch.Tensor) -> csr_matrix:
    """Returns both sides of each dimension of z over its norm: [n, d] -> float32 [n, 2 d], >= 0."""
    unit = torch.nn.functional.normalize(z, dim=1).numpy()
    return csr_matrix(np.maximum(np.concatenate([unit, -unit], axis=1), 0))


def interpret(run: Run, most_concepts: int, seed: int = 0) -> list[Interpretability]:
    """Measures a run's representations on its most frequent concepts.

    Raises:
        RunError: the items have no attribute to judge by.
    """
    members = _frequent(memberships(run.catalogue, run.config.concepts), most_concepts)
    if not members.names:
        raise RunError(f"{run.path}: no attribute value is on enough items to interpret neurons by")
    trained = run.catalogue.popularity >= run.config.concepts.min_popularity
    judged = (
        np.random.default_rng(seed).random(len(trained)) < run.config.concepts.held_out_share
    )[trained]
    V = run.recommender.item_matrix().V.detach().numpy()[trained]
    figures = []
    for part in representations(run, seed):
        evidence = Evidence.whole(members.matrix, part.codes).of(trained)
        figures.append(_figures(part.name, evidence, judged, members, V, seed))
    return figures


def stability(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Measures the share of neurons that have a partner of cosine 0.7 or more in another run.

    By representation, two shares for each pair of runs, one each way; dead neurons are left out.
    Directions are compared by what they do to the scores of the items that both runs know: two
    recommenders' embeddings have no axes in common.
    """
    shares: dict[str, list[float]] = {}
    parts = [(run, representations(run, seed)) for seed, run in enumerate(runs)]
    for position, (one, ours) in enumerate(parts):
        for other, theirs in parts[position + 1 :]:
            rows = _shared_items(one, other)
            for left, right in zip(ours, theirs, strict=True):
                cosines = _alive(left, rows[0]) @ _alive(right, rows[1]).T
                for axis in (0, 1):
                    best = cosines.max(axis=axis, initial=-1.0)
                    shares.setdefault(left.name, []).append(float((best >= SAME_COSINE).mean()))
    return shares


def _figures(
    name: str,
    evidence: Evidence,
    judged: Bools,
    members: Membership,
    V: Floats,
    seed: int,
) -> Interpretability:
    told = evidence.of(~judged)
    asked = evidence.of(judged)
    aucs = [float(np.nanmean(weights_aucs(k_sparse_probe(told, k), asked))) for k in PROBE_SIZES]
    describer = MetadataDescriber(members.names, members.matrix)
    rng = np.random.default_rng([seed, 0xD1])
    made = make_dictionary(evidence.codes, evidence.items, describer, DictionaryOptions(), rng)
    alive = int((np.diff(evidence.codes.tocsc().indptr) > 0).sum())
    neurons = evidence.codes.shape[1]
    return Interpretability(
        representation=name,
        neurons=neurons,
        alive_share=alive / neurons,
        probe_aucs=aucs,
        described_share=len(made.entries) / max(alive, 1),
        confident_share=len(made.confident) / max(alive, 1),
        confidence=_mean([entry.confidence for entry in made.entries]),
        precision=_mean([entry.precision for entry in made.confident]),
        recall=_mean([entry.recall for entry in made.confident]),
        monosemanticity=_mean(monosemanticity(evidence.codes, V)),
        neuron_entropy=_mean(neuron_entropy(evidence)),
        concept_entropy=_mean(concept_entropy(evidence)),
    )


def _frequent(members: Membership, most: int) -> Membership:
    rows = np.sort(np.argsort(-members.item_counts, kind="stable")[:most])
    return Membership(
        tuple(members.names[row] for row in rows),
        tuple(members.attributes[row] for row in rows),
        members.matrix[rows],
    )


@torch.no_grad()
def _effects(run: Run, directions: torch.Tensor) -> Floats:
    """Returns centred unit rows [n, n_items] of directions [n, d]; a head counts by its slope.

    The slope is taken at the mean item.
    """
    V, _ = run.recommender.item_matrix()
    moves = directions
    if run.recommender.has_head:
        mean = run.recommender.embed(Histories.single_items(run.recommender.n_items), 1).mean(dim=0)
        context = torch.zeros(1, run.recommender.context_size)
        step = 1e-2 * mean.norm()
        moves = run.recommender.head(mean + step * directions, context.expand(len(directions), -1))
        moves = moves - run.recommender.head(mean[None], context)
    scores = moves @ V.T
    centred = scores - scores.mean(dim=1, keepdim=True)
    return torch.nn.functional.normalize(centred, dim=1).numpy()


def _alive(part: Representation, rows: Ints) -> Floats:
    """Returns the effects on the given items of the neurons that fire for any item."""
    fires = np.diff(part.codes.tocsc().indptr) > 0
    chosen = part.effects[fires][:, rows]
    norms = np.linalg.norm(chosen, axis=1, keepdims=True)
    return np.asarray(chosen / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def _shared_items(one: Run, other: Run) -> tuple[Ints, Ints]:
    """Returns the rows of the items that both runs know and enough of their users have."""
    places = _known_items(other)
    pairs = [(row, places[item]) for item, row in _known_items(one).items() if item in places]
    if len(pairs) < 2:
        raise RunError(
            f"{one.path} and {other.path} share {len(pairs)} items: their neurons cannot be "
            "compared"
        )
    left, right = np.array(pairs, dtype=np.int64).T
    return left, right


def _known_items(run: Run) -> dict[str, int]:
    enough = run.catalogue.popularity >= run.config.concepts.min_popularity
    ids = run.catalogue.items["item_id"].to_list()
    return {ids[row]: int(row) for row in np.flatnonzero(enough)}


def _mean(values: Sequence[float] | NDArray[np.floating]) -> float:
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")
