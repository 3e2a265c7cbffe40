"""The heads of lua/operations are what meter/engine declares, and its test asserts each status of an operation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from meter.engine.answers import Refusal, Subject, names
from meter.engine.declarations import DECLARED
from meter.engine.outbox import KINDS
from meter.engine.programs import lua_folder

FILES = sorted((lua_folder() / "operations").glob("*.lua"))
OF_NO_SCRIPT = {"pending"}
"""Refusals that Python makes."""
BALANCES = "then the balances"


def header(path: Path) -> dict[str, str]:
    """The sections of a file's head by their first word, continuation lines joined."""
    sections: dict[str, str] = {}
    name = "purpose"
    for line in path.read_text().splitlines():
        if not line.startswith("--"):
            break
        found = re.match(r"-- (ARGV|Answers|Writes) +(.*)", line)
        if found:
            name = found[1]
        text = found[2] if found else line.removeprefix("--").strip()
        sections[name] = f"{sections.get(name, '')} {text}".strip()
    return sections


def plain(text: str) -> str:
    """Without what stands in parentheses, which is explanation."""
    while "(" in text:
        text = re.sub(r"\s*\([^()]*\)", "", text)
    return text


def arguments(text: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The names of the arguments, and of those that are repeated, by what they repeat."""
    own, *lists = plain(text).split(";")
    several = {}
    for listed in lists:
        what, named = listed.split(":")
        several[what.split()[-1]] = tuple(part.strip() for part in named.split(","))
    return () if own == "none" else tuple(part.strip() for part in own.split(",")), several


def answers(text: str) -> dict[str, tuple[tuple[str, ...], bool]]:
    """The alternatives by their first word: the names of their fields, and whether the balances follow."""
    text = plain(text)
    if "then for each" in text:
        text = re.sub(r", then for each.*?the balances", f"; {BALANCES}", text)
    text = text.replace(f", {BALANCES}", f"; {BALANCES}")
    with_balances, is_cut, without = text.partition(f"; {BALANCES}")
    if not is_cut:
        with_balances, without = "", text
    found = {}
    for part, balances in ((with_balances, True), (without, False)):
        for alternative in filter(str.strip, part.split("|")):
            word, *fields = alternative.split()
            found[word] = (tuple(fields), balances)
    return found


def asserted_statuses(path: Path) -> set[str]:
    """The texts that an assert compares a status with."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assert) and any(
            isinstance(part, ast.Attribute) and part.attr == "status" for part in ast.walk(node)
        ):
            found |= {
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return found


def whole_code(path: Path) -> str:
    """The code of an operation, of the one that does the rest for it, and of what tells it a price."""
    code = path.read_text()
    others = [path.with_name(f"{name}.lua") for name in re.findall(r"(?<!function )operations\.([a-z_]+)\(", code)]
    states = [lua_folder() / "state" / name for name in ("rates.lua", "cost.lua", "price.lua") if "prices." in code]
    estimates = "prices.to_hold(" in code
    code = "".join([code, *(other.read_text() for other in (*others, *states))])
    return code if estimates else code.replace("'0 unbounded", "")


def test_each_operation_has_a_declaration_and_a_file() -> None:
    assert sorted(DECLARED) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_head_says_what_its_declaration_says(path: Path) -> None:
    """Names and order of the arguments, of the answer and of each refusal; and who is told the balances."""
    sections, declared = header(path), DECLARED[path.stem]

    assert sections["purpose"].endswith((".", ":"))
    assert path.read_text().count(f"function operations.{path.stem}(") == 1
    assert arguments(sections["ARGV"]) == (declared.arguments, dict(declared.several))
    expected = {"ok": (declared.answer, declared.balances)}
    expected |= {refusal.word: (refusal.fields, refusal.balances) for refusal in declared.refusals}
    assert answers(sections["Answers"]) == {word: told for word, told in expected.items() if word not in OF_NO_SCRIPT}


RECORDED = r"(?:record\(a, |kind = (?:is_new and '[a-z_]+' or )?|pools\.give_back\()'([a-z_]+)'"
"""What code books: a row, one of several, or what a helper of lua/state gives back."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_head_says_which_kinds_it_books(path: Path) -> None:
    """And its code records these; what its helpers in lua/state record is named in the head too."""
    declared = DECLARED[path.stem]
    writes = re.search(r"\boutbox \(([^()]*)\)", header(path).get("Writes", ""))
    named = re.findall(r"[a-z_]+", writes[1]) if writes else []

    assert [kind for kind in named if kind in KINDS] == list(declared.books)
    code = whole_code(path)
    recorded = set(re.findall(RECORDED, code))
    assert recorded <= set(declared.books)
    helped = {"grant_expired"} if "forfeit(" in code or "give_back(" in code else set()
    helped |= {"reserve", "extend"} if "pools.hold_more(" in code else set()
    helped |= {"commit", "deduct"} if "pools.rows_of_commit(" in code else set()
    assert set(declared.books) - recorded <= helped


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_the_subject_is_the_first_argument(path: Path) -> None:
    declared = DECLARED[path.stem]

    assert declared.subject is Subject.NONE or declared.arguments[0] == f"{declared.subject.value}_id"


def test_the_kinds_of_the_scripts_are_exactly_those_of_the_outbox() -> None:
    """A kind that no script records is dead; one that is not in `Kind` would be a stranger to the ledger."""
    texts = [path.read_text() for path in lua_folder().rglob("*.lua")]
    recorded = {kind for text in texts for kind in re.findall(RECORDED, text)}
    recorded |= {"commit", "extend", "reserve"}  # chosen in lua/state

    assert recorded == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_status_is_asserted(path: Path) -> None:
    named = answers(header(path)["Answers"])

    missing = set(named) - asserted_statuses(Path(__file__).parent / f"test_{path.stem}.py")

    assert not missing, f"test_{path.stem}.py asserts no {sorted(missing)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_refusal_in_the_code_is_declared(path: Path) -> None:
    code = whole_code(path)
    refused = set(re.findall(r"'0 ([a-z_]+)", code))
    shared = {"finished"} if "refuse_finished" in code else set()
    replayed = {"key_reused"} if "replay(" in code else set()
    shared |= {"suspended"} if "admission.refuse_suspended(" in code else set()
    shared |= {"insufficient", "budget_reached"} if "admission.refuse(" in code else set()
    shared |= {"rate_limited"} if "admission.refuse(" in code and "requests =" in code else set()
    shared |= {"incomplete_rule", "no_rule", "too_many_rules"} if "levels.planned(" in code else set()

    declared = {refusal.word for refusal in DECLARED[path.stem].refusals} - OF_NO_SCRIPT
    assert declared == refused | shared | replayed


def test_the_parser_reads_a_head() -> None:
    told = "ok user_id x (a; b) | insufficient user_id required (a | (b); c) | overflow; then the balances | over state"
    listing = (
        'ok user_id next_cursor (or "-"), then for each grant ";" grant_id and its text, then ";" and the balances'
    )

    assert answers(told) == {
        "ok": (names("user_id x"), True),
        "insufficient": (names("user_id required"), True),
        "overflow": ((), True),
        "over": (("state",), False),
    }
    assert answers(listing) == {"ok": (names("user_id next_cursor"), True)}
    assert arguments("a, b (x, y); then each of the things: c, d (e)") == (("a", "b"), {"things": ("c", "d")})
    assert arguments("none") == ((), {})


def test_a_declaration_must_say_what_its_fields_are_and_what_it_answers() -> None:
    """Otherwise a member would be rendered wrong, and a key would refuse its own body after a rebuild."""
    with pytest.raises(ValueError, match="FORMS does not say what"):
        type(DECLARED["deduct"])("x", Subject.USER, answer=("user_id", "colour"))
    with pytest.raises(ValueError, match="FORMS does not say what"):
        type(DECLARED["deduct"])("x", Subject.USER, refusals=(Refusal("no", ("colour",)),))
    with pytest.raises(ValueError, match="no `answered`"):
        type(DECLARED["deduct"])("x", Subject.USER, books=(KINDS["deduct"],))
