"""Reproduces "Monosemanticity in Recommender Systems" (arXiv 2606.29341), called P3 here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.arrays import Bools, Floats, Ints
from training.concepts.effect import Audience, typical_unit
from training.concepts.fitting import item_codes
from training.concepts.mapping.association import area_under_curve, neuron_aucs
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.purity import monosemanticity
from training.errors import DataError
from training.evaluation.report import Curve, Estimate, Plot, Table
from training.evaluation.steering import edited_lists
from training.measures import metrics
from training.measures.metrics import Figures
from training.run import Run
from training.studies.papers.paper import Findings, Groups, Paper, Parts, caption, joined, shown

NEURONS = 5
"""Neurons of each group."""
LEAST_OF_EACH = 10
"""Users of each gender that the data must have."""
_RESAMPLED = 500
"""Resamples of the users for the error of an AUC."""
FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
MODES = ("RECONSTRUCT", "RESIDUAL")
WOMEN = f"{NEURONS} neurons of women"
MEN = f"{NEURONS} neurons of men"
RANDOM = f"{NEURONS} neurons of neither, random"
ADD = "ADD, women less men over all neurons"
_SETTING = (
    "--recommender=logistic",
    "--recommender-d=25",
    "--sae=tied",
    "--sae-k=10",
    "--sae-expansion=2",
    "--sae-auxk-weight=0",
)
_CODES = {"F": 1.0, "M": 0.0}


def women(run: Run) -> Figures:
    """Returns 1 for a woman's row of the split, 0 for a man's, NaN where it is unknown: [rows].

    Raises:
        DataError: the data set has no file of users with their gender.
    """
    path = Path(run.config.data) / "users.parquet"
    if not path.is_file():
        raise DataError(
            f"{path}: expected a file with user_id and gender (F or M) for P3, found none"
        )
    frame = pl.read_parquet(path)
    if missing := [name for name in ("user_id", "gender") if name not in frame.columns]:
        raise DataError(f"{path}: expected also the columns {missing}, found {frame.columns}")
    genders = dict(zip(frame["user_id"].cast(pl.String), frame["gender"], strict=True))
    codes = np.array([_CODES.get(genders.get(user, ""), np.nan) for user in run.split.user_ids])
    counts = {code: int((codes == value).sum()) for code, value in _CODES.items()}
    if min(counts.values()) < LEAST_OF_EACH:
        raise DataError(
            f"{path}: expected at least {LEAST_OF_EACH} users of each gender, found {counts}"
        )
    return codes


def leaning(X: csr_matrix, is_woman: Figures, least: int) -> Bools:
    """Flags the items that a larger share of the women has, among those that enough users have.

    X [users, n_items], is_woman [users].
    """
    rates = [np.asarray(X[is_woman == side].mean(axis=0))[0] for side in (1, 0)]
    known = np.asarray(X.sum(axis=0))[0] >= least
    flags: Bools = (rates[0] > rates[1]) & known
    return flags


def measure(run: Run, users: Ints) -> dict[str, Any]:
    """Measures how well neurons tell women from men, and what scaling the best of them does.

    Neurons, directions and the items' leaning are those of the training users.

    Raises:
        DataError: the users' gender is not known, or the SAE has too few neurons for three groups.
    """
    if run.sae.n_neurons < 3 * NEURONS:
        raise DataError(
            f"{run.path}: expected {3 * NEURONS} neurons for P3, found {run.sae.n_neurons}"
        )
    everyone = women(run)
    split = run.split
    length = run.config.max_length
    train = Audience.of(run.recommender, run.sae, split.histories(split.train), length)
    test = Audience.of(run.recommender, run.sae, split.histories(users), length)
    told = everyone[split.train]
    asked = everyone[users]
    flags = leaning(train.seen, told, run.config.concepts.min_popularity)
    aucs = _aucs(train.code.numpy(), told)
    order = np.argsort(aucs, kind="stable")
    rng = np.random.default_rng([run.config.seed, 0x3])
    groups = {WOMEN: order[-NEURONS:], MEN: order[:NEURONS]}
    groups[RANDOM] = rng.permutation(order[NEURONS:-NEURONS])[:NEURONS]
    wanted = split.targets(users)
    unsteered = test.lists()
    methods: dict[str, dict[str, Any]] = {}
    for mode in MODES:
        start = edited_lists(test, test.code, mode == "RECONSTRUCT")
        for method, label, lists in _edited(train, test, told, groups, mode == "RECONSTRUCT"):
            figures = _effect((unsteered, start, lists), flags, wanted, asked)
            methods.setdefault(f"{method}, {mode}", {})[label] = figures
    z = [np.concatenate([one.z.numpy(), -one.z.numpy()], axis=1) for one in (train, test)]
    best = int(_aucs(z[0], told).argmax())
    difference = _difference(train, told).numpy()
    return {
        "leaning": int(flags.sum()),
        "purity": Estimate.over_users(_purity(run)),
        "nDCG": Estimate.over_users(metrics.ndcg(unsteered, wanted)),
        "l0": Estimate.over_users((test.code > 0).sum(dim=1).double().numpy()),
        "auc": {
            f"best of {run.sae.n_neurons} neurons": _auc(
                test.code[:, int(order[-1])].numpy(), asked
            ),
            f"sum of the {WOMEN}": _auc(
                test.code[:, groups[WOMEN].copy()].sum(dim=1).numpy(), asked
            ),
            "all neurons, women less men": _auc(test.code.numpy() @ difference, asked),
            f"best of {run.sae.d} raw dimensions, either side": _auc(z[1][:, best], asked),
        },
        "ways": methods,
    }


def _purity(run: Run) -> Figures:
    """Returns the paper's monosemanticity score of each neuron, by items that enough users have."""
    items = np.flatnonzero(run.catalogue.popularity >= run.config.concepts.min_popularity)
    codes = item_codes(run.recommender, run.sae, run.config.max_length)[items]
    return monosemanticity(codes, run.recommender.item_matrix().V.detach().numpy()[items])


def _aucs(codes: Floats, is_woman: Figures) -> Figures:
    known = np.isfinite(is_woman)
    flags = csr_matrix(is_woman[known][None] == 1, dtype=np.float32)
    aucs: Figures = neuron_aucs(Evidence.whole(flags, csr_matrix(codes[known])))[0]
    return aucs


def _auc(levels: NDArray[np.floating], is_woman: Figures) -> Estimate:
    """Returns an AUC with its standard error over resampled users."""
    known = np.isfinite(is_woman)
    levels = levels[known]
    flags = is_woman[known] == 1
    rng = np.random.default_rng(0)
    drawn = (rng.integers(len(flags), size=len(flags)) for _ in range(_RESAMPLED))
    resampled = [area_under_curve(levels[rows], flags[rows]) for rows in drawn]
    return Estimate(area_under_curve(levels, flags), float(np.std(resampled)))


def _difference(audience: Audience, is_woman: Figures) -> torch.Tensor:
    """Returns the mean code of the women minus that of the men, [n_neurons]."""
    means = [audience.code[np.flatnonzero(is_woman == side)].mean(dim=0) for side in (1, 0)]
    return means[0] - means[1]


def _edited(
    train: Audience, test: Audience, told: Figures, groups: dict[str, Ints], reconstruct: bool
) -> Iterator[tuple[str, str, metrics.Lists]]:
    """Yields each edit's lists by factor or strength."""
    for method, neurons in groups.items():
        for factor in FACTORS:
            scaled = test.code.clone()
            scaled[:, neurons.copy()] *= factor
            yield method, f"{factor:g}", edited_lists(test, scaled, reconstruct)
    w = _difference(train, told)
    unit = typical_unit(train.levels(w))
    for strength in STRENGTHS:
        yield ADD, f"{strength:g}", edited_lists(test, test.code + strength * unit * w, reconstruct)


def _effect(
    lists: tuple[metrics.Lists, metrics.Lists, metrics.Lists],
    flags: Bools,
    wanted: csr_matrix,
    is_woman: Figures,
) -> dict[str, Estimate]:
    """Measures lists with an edit against the unsteered ones and the mode's unedited ones."""
    unsteered, before, after = (metrics.plain_share(each, flags) for each in lists)
    change = after - before
    return {
        "share": Estimate.over_users(after),
        "naive": Estimate.over_users(after - unsteered),
        "change": Estimate.over_users(change),
        "women": Estimate.over_users(change[is_woman == 1]),
        "men": Estimate.over_users(change[is_woman == 0]),
        "ndcg": Estimate.over_users(
            metrics.ndcg(lists[2], wanted) - metrics.ndcg(lists[1], wanted)
        ),
    }


_COLUMNS = {
    "share": "share",
    "naive": "against the recommender's own lists",
    "change": "against the mode's own unedited lists",
    "women": "the same, of women",
    "men": "the same, of men",
    "ndcg": "change of nDCG@20",
}


def _parts(groups: Groups) -> Parts:
    tables = []
    curves = []
    for findings in groups.values():
        tables += [_beside(findings), _told_apart(findings)]
        tables += [_table(findings, mode) for mode in MODES]
        for method, levels in findings[0].figures["ways"].items():
            if not method.startswith(ADD):
                points = [joined(findings, "ways", method, label, "change") for label in levels]
                curves.append(Curve(method, [float(label) for label in levels], points))
    return Parts(tables, Plot("factor on the neurons", "change of the share, same mode", curves))


def _table(findings: Sequence[Findings], mode: str) -> Table:
    """Shows every edit of one mode, without those that change nothing."""
    rows: list[list[str]] = []
    for method in (WOMEN, MEN, RANDOM, ADD):
        unedited, times = ("0", "") if method == ADD else ("1", "x ")
        path = ("ways", f"{method}, {mode}")
        rows += [
            [method, times + label, *(shown(findings, *path, label, name) for name in _COLUMNS)]
            for label in findings[0].figures["ways"][path[1]]
            if label != unedited
        ]
    title = f"{caption(findings)}: {mode}, items that lean to women, top 20"
    return Table(title, ("edit", "factor, or strength", *_COLUMNS.values()), rows)


_THEIRS = {"2": ("amplified, x 2", "0.54"), "1": ("no edit", "-"), "0": ("suppressed, x 0", "0.52")}


def _beside(findings: Sequence[Findings]) -> Table:
    """Shows the paper's figures and ours at the same places."""

    def share(group: str, mode: str, label: str) -> str:
        return shown(findings, "ways", f"{group}, {mode}", label, "share")

    methods = [(WOMEN, "RECONSTRUCT"), (RANDOM, "RECONSTRUCT"), (WOMEN, "RESIDUAL")]
    own = share(WOMEN, "RESIDUAL", "1")
    rows = [["the recommender's own lists", "0.53", *(own for _ in methods)]]
    rows += [
        [text, theirs, *(share(*method, label) for method in methods)]
        for label, (text, theirs) in _THEIRS.items()
    ]
    columns = ("", "paper, Amazon Fashion, 50 users", *(", ".join(method) for method in methods))
    return Table(f"{caption(findings)}: share of items that lean to women, top 20", columns, rows)


def _told_apart(findings: Sequence[Findings]) -> Table:
    rows = [[name, shown(findings, "auc", name)] for name in findings[0].figures["auc"]]
    rows.append(["active neurons a user", shown(findings, "l0", form=".1f")])
    rows.append(["monosemanticity of the neurons", shown(findings, "purity")])
    rows.append(["nDCG@20 of the recommender", shown(findings, "nDCG")])
    title = f"{caption(findings)}: telling women from men, AUC; chosen on training users"
    return Table(title, ("", "ours"), rows)


_DIFFERS = f"""\
- The paper uses Amazon Fashion, where items have a gender. Here users have one: an item leans to
  women if a larger share of the women among the training users has it than of the men. Each group
  has the {NEURONS} neurons that tell these women and men apart best (AUC). Shares are of the
  places of a list.
- The recommender is logistic matrix factorisation with biases. The SAE is the paper's: tied,
  ReLU, ten nested widths up to 50, of 25 dimensions (the paper: 20). Its penalty adapts until ten
  neurons are active.
- The paper's steered lists are reconstructed and its baseline is not, so what the SAE does by
  itself counts as an effect. Here each mode is compared with its own unedited lists; the paper's
  comparison is shown too.
- The paper's factors are not known to us: here they go from 0 to 4. The neurons of women are
  compared with those of men, with random others, and with ADD of the difference of the mean codes
  over all neurons, in TYPICAL units.
- The paper has 50 users without errors, we have at least 500. Errors of AUCs are over resampled
  test users."""

GENDER = Paper(
    "Monosemanticity in Recommender Systems: scaling the neurons of a gender",
    "arXiv 2606.29341",
    {"tied": _SETTING},
    measure,
    _parts,
    _DIFFERS,
    least_users=500,
)
