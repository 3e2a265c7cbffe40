"""The answers that are written out are those that the declaration makes, and none of them can forget a field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.amount import UNITS_MAX, AmountScale
from meter.api.plain_answers import PlainAnswers, check
from meter.api.rendering import Renderer
from meter.clock import NEVER_MS
from meter.engine.answers import FORMS, KEY_REUSED, Balances, Declared, Form
from meter.engine.operations import COMMIT, DEDUCT, RELEASE, RESERVE

PLAIN = (DEDUCT, RESERVE, COMMIT, RELEASE)
RENDERERS = {places: Renderer(AmountScale(places)) for places in (0, 2, 6, 12)}

units = st.one_of(
    st.sampled_from([0, 1, 10, 999_999, 1_000_000, 10_000_000, UNITS_MAX]), st.integers(-UNITS_MAX, UNITS_MAX)
)
milliseconds = st.integers(0, 2 * NEVER_MS)
TEXTS = {
    Form.TEXT: st.sampled_from(["u", "team/a@example.com", "r0_x-y"]),
    Form.TEXT_OR_NONE: st.sampled_from(["-", "0-17-5f0c2d9a3b-12"]),
    Form.UNITS: units.map(str),
    Form.MOMENT: milliseconds.map(str),
    Form.SPAN: milliseconds.map(str),
    Form.YES_OR_NO: st.sampled_from(["0", "1"]),
    Form.VIOLATIONS: st.sampled_from(["-", "c,u,-,-,c,0,-,-,4,-,-,-"]),
}


@st.composite
def lines(draw: st.DrawFn, declared: Declared) -> str:
    """A line that the operation could answer: done or replayed, or one of its refusals."""
    refusal = draw(
        st.sampled_from([None, None, *(r for r in (*declared.refusals, KEY_REUSED) if r.word != "finished")])
    )
    fields = declared.answer if refusal is None else refusal.fields
    values = [draw(TEXTS[FORMS[name]]) for name in fields]
    balances = [str(draw(units)) for _ in Balances._fields] if refusal is None or refusal.balances else []
    return " ".join([draw(st.sampled_from(["0", "1"])), "ok" if refusal is None else refusal.word, *values, *balances])


@pytest.mark.parametrize("declared", PLAIN, ids=lambda declared: declared.name)
@given(data=st.data(), places=st.sampled_from(sorted(RENDERERS)))
def test_byte_for_byte_what_the_declaration_makes(data: st.DataObject, places: int, declared: Declared) -> None:
    renderer, line = RENDERERS[places], data.draw(lines(declared))

    assert renderer.render(declared.name, line) == renderer.render_any(declared.name, line)


@given(units, st.sampled_from([0, 1, 6, 12]))
def test_an_amount_in_digits_has_the_text_of_its_number(amount: int, places: int) -> None:
    scale = AmountScale(places)

    assert scale.text_of(str(amount)) == scale.text(amount)


@pytest.mark.parametrize("declared", PLAIN, ids=lambda declared: declared.name)
def test_a_field_that_is_new_is_missed_at_once(declared: Declared) -> None:
    write = PlainAnswers(AmountScale(6)).of[declared.name]
    new = (*declared.answer, "spent", *Balances._fields)

    check(write, (*declared.answer, *Balances._fields))
    with pytest.raises(TypeError, match="spent"):
        check(write, new)
    with pytest.raises(TypeError):
        Renderer(AmountScale(6)).render(declared.name, " ".join(["0", "ok", *("1" for _ in new)]))
