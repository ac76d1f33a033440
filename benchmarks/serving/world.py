"""Makes a catalogue with its users, on disk.

    python -m benchmarks.serving.world --out DIR


Items lie in clusters, each of one genre; users like a few clusters; decoder rows point to items and
to centres. The models are the ones that trimtab-train fits, with these weights put in, and go
through the exporter like any other: DIR/bundle is a bundle as trimtab-serve loads it, and
DIR/users.npz holds histories. A directory that is whole already stays as it is. A training run
makes a world, too: that of its own users.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize
from trimtab.v1.bundle_pb2 import HistoryRule, Provenance

from exporters.choose_index import FLAT_LIMIT, IndexOptions
from exporters.contents import Users, assemble
from exporters.from_run import contents_of
from exporters.publish import write_bundle
from training.concepts.config import ConceptConfig
from training.concepts.fitting import fit_concepts
from training.histories import Histories
from training.interactions import Catalogue
from training.recommenders.elsa import Elsa
from training.run import load_run
from training.saes.base import SparseAutoencoder
from training.saes.topk import TopK
from training.splits import Split

GENRES = 12
MAX_HISTORY = 100
MEASURED_USERS = 2_000
"""Number of users that units, densities and references are measured on."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class WorldOptions:
    """Sizes of a world; the defaults are the base case."""

    items: int = 40_000
    """Size of the catalogue."""
    d: int = 512
    """Width of embeddings."""
    neurons: int = 4_096
    """Neurons of the SAE."""
    k: int = 32
    """Active neurons of a code."""
    users: int = 10_000
    """Users with histories of 20 to 100 items."""
    clusters: int = 200
    """Groups of items that lie near each other."""
    noise: float = 1.0
    """Length of an item's own part beside its cluster's centre, which has length 1."""
    flat_limit: int = FLAT_LIMIT
    """Number of items above which the fastest index with enough recall is used; below, none."""
    seed: int = 0
    """Seed of all draws."""


class World(NamedTuple):
    """A bundle on disk, and its users."""

    bundle: Path
    histories: Histories
    """Row u is the history of user user_id(u), as item indices."""
    item_ids: list[str]
    concepts: list[str]
    """Names."""
    n_neurons: int
    about: str
    """Data set, recommender and SAE."""


def user_id(row: int) -> str:
    return f"user-{row:06d}"


def item_id(index: int) -> str:
    return f"item-{index:06d}"


def open_world(out: Path) -> World:
    """Opens a world that was made before.

    Raises:
        FileNotFoundError: there is none.
    """
    with np.load(out / "users.npz") as users:
        histories = Histories(users["offsets"], users["items"])
    bundle = out / "bundle"
    origin = json.loads((bundle / "manifest.json").read_text())["provenance"]
    return World(
        bundle,
        histories,
        pl.read_parquet(bundle / "items.parquet", columns=["item_id"])["item_id"].to_list(),
        pl.read_parquet(bundle / "concepts.parquet", columns=["name"])["name"].to_list(),
        len(np.load(bundle / "decoder.npy", mmap_mode="r")) - 1,
        f"{origin['data_set']}, {origin['recommender']} and {origin['sae']}",
    )


def trained_world(path: Path, out: Path) -> World:
    """Exports the run in `path` to `out`, unless it is there, and reads its bundle and users."""
    note = out / "world.json"
    wanted = {"run": str(path.resolve())}
    if not note.is_file() or json.loads(note.read_text()) != wanted:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        run = load_run(path)
        write_bundle(contents_of(run), out / "bundle")
        np.savez(out / "users.npz", offsets=run.split.inputs.offsets, items=run.split.inputs.items)
        note.write_text(json.dumps(wanted))
    return open_world(out)


def make_world(options: WorldOptions, out: Path) -> World:
    """Makes the world of these options in `out`, unless it is there."""
    note = out / "world.json"
    wanted = asdict(options)
    if note.is_file() and json.loads(note.read_text()) == wanted:
        return open_world(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    centres = _unit_rows(rng.normal(size=(options.clusters, options.d)))
    cluster = rng.choice(
        options.clusters, options.items, p=rng.dirichlet(np.full(options.clusters, 3.0))
    )
    own = rng.normal(size=(options.items, options.d)) * options.noise / np.sqrt(options.d)
    A = _unit_rows(centres[cluster] + own)
    histories = _histories(options, cluster, rng)
    _export(options, A, centres, cluster, histories, out / "bundle", rng)
    np.savez(out / "users.npz", offsets=histories.offsets, items=histories.items)
    note.write_text(json.dumps(wanted))
    return open_world(out)


def _histories(options: WorldOptions, cluster: Ints, rng: np.random.Generator) -> Histories:
    """Draws histories: each user likes three clusters; of each, popular items more often."""
    members = [np.flatnonzero(cluster == one) for one in range(options.clusters)]
    members = [of_one for of_one in members if len(of_one)]
    rows = []
    for length in rng.integers(20, MAX_HISTORY + 1, options.users):
        near = np.concatenate([members[one] for one in rng.choice(len(members), 3, replace=False)])
        odds = 1.0 / (1.0 + rng.permutation(len(near)))
        rows.append(
            rng.choice(near, min(length, len(near) // 2), replace=False, p=odds / odds.sum())
        )
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Histories(offsets, np.concatenate(rows).astype(np.int64))


def _export(
    options: WorldOptions,
    A: Floats,
    centres: Floats,
    cluster: Ints,
    histories: Histories,
    out: Path,
    rng: np.random.Generator,
) -> None:
    recommender = Elsa(options.items, options.d)
    sae = SparseAutoencoder(options.d, options.neurons, TopK(options.k))
    near = (
        A[rng.choice(options.items, options.neurons)]
        + centres[rng.choice(len(centres), options.neurons)]
    )
    rows = normalize(
        torch.from_numpy(near + rng.normal(size=near.shape).astype(np.float32) / options.d**0.5)
    )
    with torch.no_grad():
        recommender.A.copy_(torch.from_numpy(A))
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    measured = histories.rows(np.arange(min(MEASURED_USERS, histories.size)))
    split = _split(measured, options.items)
    catalogue = _catalogue(cluster, np.bincount(histories.items, minlength=options.items))
    fitted = fit_concepts(
        recommender.eval(),
        sae.eval(),
        catalogue,
        split,
        MAX_HISTORY,
        ConceptConfig(labels="correlation", max_users=200, min_popularity=0),
        options.seed,
    )
    contents = assemble(
        recommender=recommender,
        sae=sae,
        catalogue=catalogue,
        users=Users(split.histories(split.train), split.histories(split.validation)),
        labels=fitted.labels,
        concepts=fitted.concepts,
        history=HistoryRule(ordered=False, max_length=MAX_HISTORY),
        provenance=Provenance(
            data_set="made-up clusters",
            split="users",
            seed=options.seed,
            code_version="benchmarks",
            recommender="elsa",
            sae="topk",
        ),
    )
    write_bundle(contents, out, index=IndexOptions(flat_limit=options.flat_limit))


def _split(histories: Histories, n_items: int) -> Split:
    """Holds out a fifth of the users; their targets are not used here."""
    rows = np.arange(histories.size)
    held_out = rows % 5 == 0
    nothing = Histories(np.zeros(histories.size + 1, np.int64), np.empty(0, np.int64))
    names = tuple(map(user_id, rows.tolist()))
    return Split(names, n_items, rows[~held_out], rows[held_out], rows[:0], histories, nothing)


def _catalogue(cluster: Ints, popularity: Ints) -> Catalogue:
    return Catalogue(
        pl.DataFrame(
            {
                "item_id": [item_id(index) for index in range(len(cluster))],
                "title": [f"Item {index} of cluster {one}" for index, one in enumerate(cluster)],
                "popularity": popularity,
                "genre": [f"genre {one % GENRES}" for one in cluster],
                "year": 1950.0 + np.arange(len(cluster)) % 75,
            },
            schema_overrides={"popularity": pl.Int64},
        )
    )


def _unit_rows(rows: NDArray[np.float64]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    for name, value in asdict(WorldOptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    world = make_world(WorldOptions(**arguments), out)
    print(f"{world.bundle}: {world.histories.size:,} users, {len(world.histories.items):,} events")


if __name__ == "__main__":
    main()
