import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab import SteerTextError, parse_share
from trimtab.share_text import share_between
from trimtab.v1.steering_pb2 import TargetShare


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Film-Noir>=0.3", TargetShare(concept="Film-Noir", min_share=0.3)),
        (" Film-Noir <= .5 ", TargetShare(concept="Film-Noir", max_share=0.5)),
        ("Comedy=0.2..0.4", TargetShare(concept="Comedy", min_share=0.2, max_share=0.4)),
        ("Comedy = 0 .. 1", TargetShare(concept="Comedy", min_share=0, max_share=1)),
        ("genres=Comedy>=1", TargetShare(concept="genres=Comedy", min_share=1)),
        ("Drama<=0.5x", TargetShare(concept="Drama", max_times=0.5)),
        ("Film-Noir >= 2x", TargetShare(concept="Film-Noir", min_times=2)),
        ("Drama=.5x..0.3", TargetShare(concept="Drama", min_times=0.5, max_share=0.3)),
        ("Drama=0.2..1.5x", TargetShare(concept="Drama", min_share=0.2, max_times=1.5)),
        ("2x=1x..2x", TargetShare(concept="2x", min_times=1, max_times=2)),
        ("a<=1>=0.5", TargetShare(concept="a<=1", min_share=0.5)),
        ("1..2=0..1", TargetShare(concept="1..2", min_share=0, max_share=1)),
    ],
)
def test_a_text_is_read_as_its_share(text: str, share: TargetShare) -> None:
    assert parse_share(text) == share


NO_SHARES = (
    "|Drama|>=0.3|Drama>=|Drama>=x|Drama>0.3|Drama=0.3|Drama>=-0.1|Drama>=nan|Drama>=1.01|Drama>=30"
)
NO_RANGES = "Drama=0.5..0.2|Drama=..0.5|Drama=2x..1x|Drama>=0.5 x|Drama>=-1x"


@pytest.mark.parametrize("text", [*NO_SHARES.split("|"), *NO_RANGES.split("|")])
def test_a_text_that_is_not_a_share_is_refused_with_what_was_expected_and_found(text: str) -> None:
    with pytest.raises(SteerTextError, match=r"(?s)expected .* found"):
        parse_share(text)


@given(name=st.text(min_size=1), share=st.integers(0, 1_000))
def test_any_concept_name_comes_back(name: str, share: int) -> None:
    name = name.strip() or "x"
    assert parse_share(f"{name}>={share / 1_000}").concept == name


@pytest.mark.parametrize("bound", ["", "x", "half", "0.5 x", "-1x", "nan"])
def test_a_bound_that_is_neither_a_share_nor_a_multiple_is_refused(bound: str) -> None:
    with pytest.raises(SteerTextError, match=r"expected a share such as '0\.3' or a multiple"):
        share_between("Drama", None, bound)


def test_bounds_may_be_shares_and_multiples() -> None:
    share = share_between("Drama", 0.25, "0.5x")
    assert share == TargetShare(concept="Drama", min_share=0.25, max_times=0.5)
