"""The heads of lua/operations: each says ARGV and Answers, and each status it names is asserted by its test file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from meter.engine.programs import lua_folder

FILES = sorted((lua_folder() / "operations").glob("*.lua"))


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


def statuses(answers: str) -> set[str]:
    """The first word of each alternative; what stands in parentheses is explanation."""
    plain = re.sub(r"\([^()]*\)", "", answers)
    return {word for part in plain.split("|") for word in re.findall(r"[a-z_]+", part)[:1]}


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_head_says_what_goes_in_and_out(path: Path) -> None:
    sections = header(path)

    assert sections["purpose"].endswith((".", ":"))
    assert sections["ARGV"]
    assert "ok" in statuses(sections["Answers"])
    assert path.read_text().count(f"function operations.{path.stem}(") == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_status_is_asserted(path: Path) -> None:
    named = statuses(header(path)["Answers"])

    missing = named - asserted_statuses(Path(__file__).parent / f"test_{path.stem}.py")

    assert not missing, f"test_{path.stem}.py asserts no {sorted(missing)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_each_refusal_in_the_code_is_in_the_head(path: Path) -> None:
    code = path.read_text()
    refused = set(re.findall(r"'0 ([a-z_]+)", code))
    shared = {"finished"} if "refuse_finished" in code else set()
    replayed = {"key_reused"} if "replay(" in code else set()

    assert statuses(header(path)["Answers"]) == {"ok"} | refused | shared | replayed


def test_the_parser_reads_a_head() -> None:
    answers = "ok user x | insufficient user required (a | b; c) | overflow; then the balances | finished state (x)"

    assert statuses(answers) == {"ok", "insufficient", "overflow", "finished"}
