import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab.filter_text import FilterTextError, parse_condition
from trimtab.v1.recommendation_pb2 import Condition


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("genres=Comedy,Drama", Condition(attribute="genres", values=["Comedy", "Drama"])),
        (" genres = Film Noir ", Condition(attribute="genres", values=["Film Noir"])),
        (
            r"title=Usual Suspects\, The",
            Condition(attribute="title", values=["Usual Suspects, The"]),
        ),
        ("title=a=b", Condition(attribute="title", values=["a=b"])),
        ("title=Wait...", Condition(attribute="title", values=["Wait..."])),
        ("year=1990..1999", Condition(attribute="year", min=1990, max=1999)),
        ("year=1990..", Condition(attribute="year", min=1990)),
        ("year=..1960", Condition(attribute="year", max=1960)),
        ("price=-1.5e2 .. .5", Condition(attribute="price", min=-150, max=0.5)),
    ],
)
def test_a_text_is_read_as_its_condition(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text", ["", "genres", "=Comedy", "genres=", "genres=a,,b", "year=..", "year=2000..1990"]
)
def test_a_text_that_is_not_a_condition_is_refused_with_what_was_expected_and_found(
    text: str,
) -> None:
    with pytest.raises(FilterTextError, match=r"expected .* found"):
        parse_condition(text)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\."), min_size=1),
        min_size=1,
    )
)
def test_values_with_escaped_commas_come_back(values: list[str]) -> None:
    values = [value.strip() or "x" for value in values]
    text = "genres=" + ",".join(value.replace(",", "\\,") for value in values)
    assert list(parse_condition(text).values) == values
