"""From a training run to a bundle: ONNX graphs, index, concept cards, manifest, parity check."""
