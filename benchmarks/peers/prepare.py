"""Writes the arrays of a bundle that pipeline.py reads."""

import argparse
from pathlib import Path

import numpy as np
from trimtab.v1.bundle_pb2 import SCALE_RULE_UNIT_NORM

from service.bundle.open import open_bundle


def prepare(bundle_dir: Path, out: Path) -> None:
    bundle = open_bundle(bundle_dir)
    manifest = bundle.manifest
    if manifest.dimensions.has_head or manifest.scale_rule != SCALE_RULE_UNIT_NORM:
        raise SystemExit(f"{bundle_dir}: the pipeline is for identity heads and unit norms")
    catalogue = bundle.catalogue
    by_hash = np.argsort(catalogue.hashes)
    concepts = [concept.target for concept in bundle.labels.concepts]
    out.mkdir(parents=True, exist_ok=True)
    np.savez(
        out / "prepared.npz",
        bundle=str(bundle_dir.resolve()),
        model=bundle.cache_key,
        scale=manifest.scale_factor,
        concepts=[target.name for target in concepts],
        directions=np.stack([target.direction for target in concepts]),
        units=np.array([target.unit for target in concepts], np.float32),
        neuron_units=bundle.labels.units,
        item_ids=list(catalogue.item_ids),
        hashes=catalogue.hashes[by_hash],
        by_hash=by_hash,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prepare(arguments.bundle, arguments.out)


if __name__ == "__main__":
    main()
