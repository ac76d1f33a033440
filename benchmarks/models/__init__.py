"""Measures recommenders and sparse autoencoders: quality, fidelity and cost of training."""
