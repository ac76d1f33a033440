"""Makes bundles from training runs: graphs, index, concept cards, manifest and parity check."""
