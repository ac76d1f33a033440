"""Trains offline: interactions, recommender, sparse autoencoder, concepts, evaluation."""

import os

# torch's OpenMP threads spin while they wait for each other: next to another busy process that made
# training six times slower on two cores (144 s against 25 s); asleep they lose nothing. Read when
# torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
