import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trimtab.steer_text import SteerTextError, format_edit, parse_edit
from trimtab.v1.steering_pb2 import (
    OPERATION_ABLATE,
    OPERATION_ADD,
    OPERATION_BLEND,
    OPERATION_BOOST,
    OPERATION_CAP,
    OPERATION_SCALE,
    OPERATION_SET,
    OPERATION_UNSPECIFIED,
    UNIT_RAW,
    UNIT_TYPICAL,
    UNIT_UNSPECIFIED,
    Edit,
    WeightedNeuron,
    WeightedNeurons,
)

STRENGTHS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
# Names that resemble the grammar.
TRICKY_NAMES = st.lists(
    st.sampled_from([*'#=:"1.+- x', "raw", ":set", ":ablate", ": cap"]), min_size=1, max_size=8
).map("".join)


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        (
            "Film-Noir=+1",
            Edit(concept="Film-Noir", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL),
        ),
        (
            "Film-Noir=1",
            Edit(concept="Film-Noir", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL),
        ),
        (
            "Film-Noir=-.5",
            Edit(concept="Film-Noir", operation=OPERATION_ADD, strength=-0.5, unit=UNIT_TYPICAL),
        ),
        ("#123=-0.5", Edit(neuron=123, operation=OPERATION_ADD, strength=-0.5, unit=UNIT_TYPICAL)),
        ("#123=+0.3raw", Edit(neuron=123, operation=OPERATION_ADD, strength=0.3, unit=UNIT_RAW)),
        ("#0:set=1e-2 raw", Edit(neuron=0, operation=OPERATION_SET, strength=0.01, unit=UNIT_RAW)),
        (
            "Film-Noir:set=2",
            Edit(concept="Film-Noir", operation=OPERATION_SET, strength=2, unit=UNIT_TYPICAL),
        ),
        ("Film-Noir:scale=.5", Edit(concept="Film-Noir", operation=OPERATION_SCALE, strength=0.5)),
        (
            "Film-Noir:cap=1",
            Edit(concept="Film-Noir", operation=OPERATION_CAP, strength=1, unit=UNIT_TYPICAL),
        ),
        ("Film-Noir:blend=.2", Edit(concept="Film-Noir", operation=OPERATION_BLEND, strength=0.2)),
        ("Film-Noir:ablate", Edit(concept="Film-Noir", operation=OPERATION_ABLATE)),
        ("#7:ablate", Edit(neuron=7, operation=OPERATION_ABLATE)),
        (
            "Children's=+1",
            Edit(concept="Children's", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL),
        ),
        ("a=b=+1", Edit(concept="a=b", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL)),
        (
            "2001: A Space=2",
            Edit(concept="2001: A Space", operation=OPERATION_ADD, strength=2, unit=UNIT_TYPICAL),
        ),
        (
            "top #1 hits:set=2",
            Edit(concept="top #1 hits", operation=OPERATION_SET, strength=2, unit=UNIT_TYPICAL),
        ),
        ('"#1"=+1', Edit(concept="#1", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL)),
        (
            '"x:set"=+1',
            Edit(concept="x:set", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL),
        ),
        (
            "x:set:add=1",
            Edit(concept="x:set", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL),
        ),
        (
            "  Film-Noir = +1 ",
            Edit(concept="Film-Noir", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL),
        ),
    ],
)
def test_a_text_is_read_as_its_edit(text: str, edit: Edit) -> None:
    assert parse_edit(text) == edit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("Film-Noir", "found none"),
        ("Film-Noir=", "as strength, found ''"),
        ("Film-Noir=much", "as strength, found 'much'"),
        ("Film-Noir=nan", "as strength, found 'nan'"),
        ("Film-Noir=inf", "as strength, found 'inf'"),
        ("Film-Noir=1_0", "as strength, found '1_0'"),
        ("Film-Noir=1e999", "expected a finite number"),
        ("Film-Noir=1e39", "fits a 32-bit float, found 1e39"),
        ("Film-Noir=raw", "as strength, found 'raw'"),
        ("=1", "found no target"),
        (":set=1", "found no target"),
        (":ablate", "found no target"),
        ('""=1', "found no target"),
        ("#-5=1", "as neuron, found -5"),
        ("#1.5=1", "as neuron, found 1.5"),
        ("#4294967296=1", "as neuron, found 4294967296"),
        ("#" + "9" * 5000 + "=1", "expected a whole number"),
        ("Film-Noir:ablate=1", "expected 'Film-Noir:ablate'"),
        ("Film-Noir:scale=2raw", "a number without a unit for scale"),
        ("Film-Noir:blend=.2raw", "a number without a unit for blend"),
        ("Film-Noir:boost=.2raw", "a number without a unit for boost"),
    ],
)
def test_a_text_that_is_not_an_edit_is_refused_with_what_was_expected_and_found(
    text: str, message: str
) -> None:
    with pytest.raises(SteerTextError) as caught:
        parse_edit(text)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Generates edits that can be written as text."""
    edit = Edit()
    if draw(st.booleans()):
        edit.neuron = draw(st.integers(0, 2**32 - 1))
    else:
        edit.concept = draw(NAMES | TRICKY_NAMES)
    edit.operation = draw(
        st.sampled_from(
            [
                OPERATION_ADD,
                OPERATION_SET,
                OPERATION_SCALE,
                OPERATION_CAP,
                OPERATION_ABLATE,
                OPERATION_BLEND,
                OPERATION_BOOST,
            ]
        )
    )
    if edit.operation != OPERATION_ABLATE:
        edit.strength = draw(STRENGTHS)
        bare = edit.operation in (OPERATION_SCALE, OPERATION_BLEND, OPERATION_BOOST)
        edit.unit = UNIT_UNSPECIFIED if bare else draw(st.sampled_from([UNIT_RAW, UNIT_TYPICAL]))
    return edit


@given(edits())
@example(
    Edit(neuron=0, operation=OPERATION_SCALE, strength=3.4028235e38)
)  # above the largest, rounds to it
@example(Edit(neuron=0, operation=OPERATION_SCALE, strength=-0.0))
def test_every_written_edit_is_read_back_unchanged(edit: Edit) -> None:
    assert parse_edit(format_edit(edit)) == edit


@given(NAMES | TRICKY_NAMES)
def test_any_text_is_an_edit_or_a_readable_refusal(text: str) -> None:
    try:
        edit = parse_edit(text)
    except SteerTextError as error:
        refusal = str(error)
        assert repr(text) in refusal or re.search("expected .* found", refusal)
    else:
        assert parse_edit(format_edit(edit)) == edit


def test_an_edit_without_operation_is_written_as_add() -> None:
    edit = Edit(concept="Film-Noir", operation=OPERATION_UNSPECIFIED, strength=0.1)
    assert format_edit(edit) == "Film-Noir=+0.1"


@pytest.mark.parametrize(
    "edit",
    [
        Edit(strength=1),
        Edit(concept="", strength=1),
        Edit(concept="Film-Noir"),
        Edit(weights=WeightedNeurons(neurons=[WeightedNeuron(neuron=1, weight=1)]), strength=1),
    ],
)
def test_an_edit_that_has_no_text_is_refused(edit: Edit) -> None:
    with pytest.raises(SteerTextError):
        format_edit(edit)
