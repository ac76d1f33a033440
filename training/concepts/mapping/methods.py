"""Every mapping method by the name that flags, labels and concepts give it."""

from __future__ import annotations

from training.concepts.mapping.association import auc, correlation, neuron_aucs
from training.concepts.mapping.causal import causal
from training.concepts.mapping.contrast import contrast
from training.concepts.mapping.evidence import Method
from training.concepts.mapping.probes import dense_probe, sparse_probe
from training.concepts.mapping.tfidf import tfidf, tfidf_unique

METHODS: dict[str, Method] = {
    "contrast": Method("mean code of items with the concept minus mean code of the rest", contrast),
    "tfidf": Method("TF-IDF, neurons as terms of concepts (arXiv 2601.11182)", tfidf),
    "tfidf-unique": Method("TF-IDF, concepts as terms of neurons (arXiv 2601.11182)", tfidf_unique),
    "auc": Method("AUC of the neuron's activation for the concept's items", auc, neuron_aucs),
    "correlation": Method(
        "point-biserial correlation of activation and concept", correlation, correlation
    ),
    "dense-probe": Method("logistic regression over all neurons", dense_probe),
    "sparse-probe": Method(
        "logistic regression over 10 neurons of largest mean difference", sparse_probe
    ),
    "causal": Method(
        "change of the concept's share of lists when it is raised", causal, needs_audience=True
    ),
}
