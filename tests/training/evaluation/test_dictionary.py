"""The concept dictionary: disjoint samples, honest tests, faults that cost one neuron only."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.concepts.describing.dictionary import (
    DescriberError,
    DictionaryOptions,
    Samples,
    activation_levels,
    make_dictionary,
)
from training.concepts.describing.metadata import MetadataDescriber
from training.concepts.fitting import dictionary_labels
from training.concepts.labels import Label, joined
from training.errors import ConfigError

OPTIONS = DictionaryOptions(on_samples=10, off_samples=30, least_on=4)
ITEMS = np.arange(400)


@pytest.fixture
def tagged(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draws four tags on 400 items, [4, 400]; no neuron fires for items of the last."""
    return rng.random((4, 400)) < 0.25


def codes_of(*columns: NDArray[np.bool_]) -> csr_matrix:
    """Neurons that fire fully for the flagged items; a tenth of it elsewhere would be level 1."""
    return csr_matrix(np.stack(columns, axis=1).astype(np.float32))


class Noting:
    """A describer that keeps what it was shown, and says that everything fires."""

    name = "noting"
    provenance = "test"
    text = "anything"

    def __init__(self, faulty: int | None = None) -> None:
        self.faulty = faulty
        self.shown = list[Samples]()
        self.asked = list[NDArray[np.int64]]()

    def describe(self, neuron: int, samples: Samples) -> "Noting":
        if neuron == self.faulty:
            raise DescriberError("429")
        self.shown.append(samples)
        return self

    def predict(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        self.asked.append(items)
        return np.ones(len(items), dtype=bool)


def test_a_neuron_that_fires_for_a_tag_is_described_by_it_and_passes_its_test(
    tagged: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    describer = MetadataDescriber(("a", "b", "c", "d"), csr_matrix(tagged.astype(np.float32)))
    both = tagged[0] & tagged[1]
    either = tagged[1] | tagged[2]
    made = make_dictionary(codes_of(tagged[0], both, either), ITEMS, describer, OPTIONS, rng)
    assert [entry.text for entry in made.entries] == ["a", "a and b", "b or c"]
    for entry in made.entries:
        assert entry.confidence == entry.precision == entry.recall == 1.0


def test_a_neuron_that_fires_by_chance_is_not_interpretable(
    tagged: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    describer = MetadataDescriber(("a", "b", "c", "d"), csr_matrix(tagged.astype(np.float32)))
    made = make_dictionary(codes_of(*(rng.random((40, 400)) < 0.1)), ITEMS, describer, OPTIONS, rng)
    assert len(made.entries) > 30
    assert len(made.confident) <= 2
    assert abs(np.mean([entry.confidence for entry in made.entries]) - 0.5) < 0.06


def test_explanation_and_test_samples_are_disjoint_and_truly_on_and_off(
    rng: np.random.Generator,
) -> None:
    describer = Noting()
    active = rng.random(400) < 0.1
    items = ITEMS + 1000
    make_dictionary(codes_of(active), items, describer, OPTIONS, rng)
    (shown,), (asked,) = describer.shown, describer.asked
    assert not set(asked.tolist()) & {*shown.on.tolist(), *shown.off.tolist()}
    assert active[shown.on - 1000].all()
    assert not active[shown.off - 1000].any()
    assert (len(shown.on), len(shown.off)) == (10, 30)
    assert active[asked - 1000].sum() == 10
    assert len(asked) == 40
    assert not active[asked[:10] - 1000].all(), "the order tells nothing"


def test_confidence_weighs_on_and_off_alike_and_precision_is_at_the_true_rate(
    rng: np.random.Generator,
) -> None:
    """Predicting that all items fire gives confidence 1/2 and a precision of about 1/10."""
    active = np.zeros(400, dtype=bool)
    active[:40] = True
    (entry,) = make_dictionary(codes_of(active), ITEMS, Noting(), OPTIONS, rng).entries
    assert (entry.confidence, entry.recall) == (0.5, 1.0)
    assert entry.precision == pytest.approx(0.1)


def test_levels_are_tenths_of_all_neurons_activations_together() -> None:
    values = np.arange(1, 101, dtype=np.float32).reshape(50, 2)
    levels = activation_levels(csr_matrix(values)).toarray()
    assert np.bincount(levels.astype(int).ravel()).tolist() == [0] + [10] * 10
    assert levels[0].tolist() == [1, 1]
    assert activation_levels(csr_matrix((3, 2))).nnz == 0


def test_weak_activations_are_neither_on_nor_off(rng: np.random.Generator) -> None:
    strengths = np.zeros((400, 1), dtype=np.float32)
    strengths[:200, 0] = np.arange(1, 201)
    describer = Noting()
    make_dictionary(csr_matrix(strengths), ITEMS, describer, OPTIONS, rng)
    (shown,), (asked,) = describer.shown, describer.asked
    assert min(shown.on.min(), asked.min()) >= 80
    assert shown.levels.min() >= 5
    assert shown.off.min() >= 200


def test_neurons_that_few_items_fire_or_all_items_fire_are_not_described(
    rng: np.random.Generator,
) -> None:
    few = np.arange(400) < 3
    made = make_dictionary(codes_of(few, np.ones(400, bool)), ITEMS, Noting(), OPTIONS, rng)
    assert made.entries == []
    assert made.undescribed == 0


def test_a_fault_costs_one_neuron_and_is_told(rng: np.random.Generator) -> None:
    active = rng.random((3, 400)) < 0.1
    made = make_dictionary(codes_of(*active), ITEMS, Noting(faulty=1), OPTIONS, rng)
    assert [entry.neuron for entry in made.entries] == [0, 2]
    assert made.faults == ["neuron 1: 429"]
    assert made.undescribed == 1


def test_labels_tell_the_test_and_those_that_failed_it_come_last(
    tagged: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    codes = codes_of(tagged[0], rng.random(400) < 0.1)
    describer = MetadataDescriber(("a", "b", "c", "d"), csr_matrix(tagged.astype(np.float32)))
    made = make_dictionary(codes, ITEMS, describer, OPTIONS, rng)
    labels = dictionary_labels(made, describer.name, describer.provenance, 2)
    assert labels[0][0][:3] == ("a", "dictionary", 1.0)
    assert (
        "10 items that fire it and 30 that do not: precision 1.00, recall 1.00"
        in labels[0][0].provenance
    )
    other = [[Label("x", "tfidf", 0.1)], [Label("x", "tfidf", 0.1)]]
    assert [row[0].method for row in joined([labels, other])] == ["dictionary", "tfidf"]


@pytest.mark.parametrize("wrong", [{"on_samples": 1}, {"off_samples": 0}, {"least_on": 0}])
def test_options_without_meaning_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        DictionaryOptions(**wrong)
