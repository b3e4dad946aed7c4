"""Env files are read strictly, and no fault of one repeats a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.secrets.envfile import parse_env


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("A=1", {"A": "1"}),
        ("  export A = 1", None),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A= spaced out ", {"A": "spaced out"}),
        ("A=x=y#z$HOME", {"A": "x=y#z$HOME"}),
        ("# A=1", {}),
        ("   ", {}),
        ("\ufeffA=1\r", {"A": "1"}),
        ("A='a \"b\" \\n # $x'  # comment", {"A": 'a "b" \\n # $x'}),
        ('A="a\\n\\"b\\" \\$x \\\\"', {"A": 'a\n"b" $x \\'}),
        ("A=1 # comment?", None),
        ("A=#1", None),
        ('A="open', None),
        ("A='open", None),
        ('A="x" y', None),
        ('A="\\q"', None),
        ("A", None),
        ("1A=x", None),
        ("A-B=x", None),
        ("A=\0", None),
        ("A=1\nA=2", None),
    ],
)
def test_env_files_are_read_strictly(line: str, values: dict[str, str] | None) -> None:
    """What readers of env files disagree on is a fault, not a guess."""
    found, faults = parse_env(line, "x.env")
    assert (None if faults else found) == values


@given(st.text(), st.text())
def test_no_fault_of_an_env_file_repeats_a_value(name: str, value: str) -> None:
    """Any text is read or refused, by line number only."""
    canary = "canary-" + "7" * 20
    _, faults = parse_env(f"{name}={canary}{value}\n{canary}", "x.env")
    assert faults
    assert all(canary not in str(fault) for fault in faults)
    assert all(fault.key.startswith("line ") for fault in faults)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).filter(
        lambda text: "'" not in text and "\n" not in text and "\r" not in text
    )
)
def test_single_quotes_hold_anything_on_a_line(value: str) -> None:
    """Passwords with any character can be written as they are."""
    assert parse_env(f"A='{value}'", "x") == ({"A": value}, [])
