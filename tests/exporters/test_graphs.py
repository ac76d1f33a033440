"""Compares the graphs with torch, for every batch size and length."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from exporters.errors import GraphError
from exporters.graphs import OPSET, Graphs, export_graphs, export_recommender, session
from training.recommenders import Activation


@pytest.fixture(scope="module")
def graphs(any_contents: Any) -> Graphs:
    return export_graphs(any_contents.recommender, any_contents.sae, any_contents.dims.d)


@pytest.mark.parametrize("lengths", [[0], [1], [7], [0, 3, 5], list(range(64))], ids=str)
def test_the_encoder_equals_torch_whatever_batch_and_length(
    any_contents: Any, graphs: Graphs, lengths: list[int]
) -> None:
    rng = np.random.default_rng(len(lengths))
    mask = (np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]).astype(np.float32)
    items = rng.integers(200, size=mask.shape) * mask.astype(np.int64)
    found = session(graphs.encoder).run(None, {"items": items, "mask": mask})
    expected = any_contents.recommender.activate(torch.from_numpy(items), torch.from_numpy(mask))
    assert found[0].shape == (len(lengths), 32)
    assert len(found) == (2 if any_contents.dims.context else 1)
    for values, wanted in zip(found, expected, strict=False):
        np.testing.assert_allclose(values, wanted.detach(), rtol=1e-4, atol=1e-5)


def test_an_empty_history_gives_what_torch_gives_and_a_code_without_nan(graphs: Graphs) -> None:
    (z,) = session(graphs.encoder).run(
        ["z"], {"items": np.zeros((1, 0), np.int64), "mask": np.zeros((1, 0), np.float32)}
    )
    np.testing.assert_array_equal(z, np.zeros((1, 32), np.float32))
    _, activations = session(graphs.sae).run(["neurons", "activations"], {"z": z})
    assert np.isfinite(activations).all()


def test_padding_changes_nothing(graphs: Graphs) -> None:
    encoder = session(graphs.encoder)
    items = np.array([[5, 9, 11]])
    ones = np.ones((1, 3), np.float32)
    short = encoder.run(None, {"items": items, "mask": ones})
    long = encoder.run(
        None, {"items": np.pad(items, ((0, 0), (0, 40))), "mask": np.pad(ones, ((0, 0), (0, 40)))}
    )
    for values, padded in zip(short, long, strict=True):
        np.testing.assert_allclose(values, padded, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 64])
def test_the_sae_gives_the_same_code_as_torch_largest_first(
    any_contents: Any, graphs: Graphs, batch: int
) -> None:
    z = torch.randn(batch, 32, generator=torch.Generator().manual_seed(3))
    neurons, activations = session(graphs.sae).run(["neurons", "activations"], {"z": z.numpy()})
    expected = any_contents.sae.encode_sparse(z)
    np.testing.assert_array_equal(neurons, expected.neurons)
    np.testing.assert_allclose(activations, expected.activations.detach(), rtol=1e-4, atol=1e-6)
    assert (np.diff(activations, axis=1) <= 0).all()


@pytest.mark.parametrize("batch", [1, 64])
def test_the_head_equals_torch_and_is_left_out_where_it_is_the_identity(
    any_contents: Any, graphs: Graphs, batch: int
) -> None:
    assert (graphs.head is not None) == any_contents.recommender.has_head
    if graphs.head is not None:
        z = torch.randn(batch, 32, generator=torch.Generator().manual_seed(3))
        items = torch.randint(200, (batch, 4), generator=torch.Generator().manual_seed(4))
        context = any_contents.recommender.activate(items, torch.ones(batch, 4)).context.detach()
        feed = {"z": z.numpy()} | (
            {"context": context.numpy()} if any_contents.dims.context else {}
        )
        (found,) = session(graphs.head).run(["q"], feed)
        expected = any_contents.recommender.head(z, context).detach()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_graphs_hold_no_trace_of_where_they_were_made(graphs: Graphs) -> None:
    for graph in graphs:
        if graph is None:
            continue
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model)
        assert model.opset_import[0].version == OPSET
        assert b".py" not in graph
        assert not model.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        names = {
            dim.dim_param for one in model.graph.input for dim in one.type.tensor_type.shape.dim
        }
        assert names <= {"", "batch", "length"}


def test_a_second_export_gives_the_same_bytes(any_contents: Any, graphs: Graphs) -> None:
    assert export_graphs(any_contents.recommender, any_contents.sae, any_contents.dims.d) == graphs


def test_exporting_keeps_the_console_clean(
    contents: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    export_graphs(contents.recommender, contents.sae, contents.dims.d)
    assert capfd.readouterr() == ("", "")


class _NeedsAnItem(nn.Module):
    hook_point = "user_embedding"
    ordered = True
    has_head = False
    context_size = 0

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.ones(5, 4))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        return self.A[items[:, 0]] * mask[:, :1]


class _AsksInPython(_NeedsAnItem):
    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        total = float(mask.sum())
        return super().encode(items, mask) * (2.0 if total > 3 else 1.0)


class _HasAnotherContext(_NeedsAnItem):
    has_head = True
    context_size = 7

    def activate(self, items: Tensor, mask: Tensor) -> Activation:
        z = (self.A[items] * mask.unsqueeze(-1)).sum(dim=1)
        return Activation(z, torch.cat([z, z], dim=1))


@pytest.mark.parametrize(
    ("recommender", "fault"),
    [
        (_NeedsAnItem(), r"encoder's graph fails for inputs \[1, 0\]"),
        (_AsksInPython(), "the encoder cannot be exported to ONNX"),
        (
            _HasAnotherContext(),
            r"expected context of shape \[1, 7\] for inputs \[1, 0\], found \[1, 8\]",
        ),
    ],
    ids=["needs an item", "asks in Python", "has another context"],
)
def test_an_encoder_that_does_not_fit_the_format_is_refused_by_name(
    recommender: Any, fault: str
) -> None:
    with pytest.raises(GraphError, match=fault):
        export_recommender(recommender, 4)
