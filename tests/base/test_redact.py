"""Secrets leave every text, in every form in which they travel."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.base.redact import SHORTEST, Redactor, without_credentials
from agent.contract.facts import Stale
from agent.contract.package import JobRecord
from agent.contract.results import JobStatus

SECRETS = st.text(st.characters(codec="utf-8"), min_size=SHORTEST, max_size=40).filter(
    lambda text: len(text.strip()) >= SHORTEST and "[redacted:KEY]".find(text) < 0
)
AROUND = st.text(st.characters(codec="utf-8"), max_size=12)


@given(SECRETS, AROUND, AROUND)
def test_a_secret_is_gone_from_any_text(secret: str, before: str, after: str) -> None:
    """Plain, in a URL, in JSON: the value does not appear, and its name does."""
    redactor = Redactor({"KEY": secret})
    for form in (
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ):
        shown = redactor.text(f"{before}{form}{after}")
        assert "[redacted:KEY]" in shown
        assume(form not in f"{before}[redacted:KEY]{after}")
        assert form not in shown


@given(SECRETS, st.binary(max_size=9), st.binary(max_size=9))
def test_a_secret_is_gone_from_base64_at_every_alignment(
    secret: str, before: bytes, after: bytes
) -> None:
    """As in an Authorization header, where a user name comes before it."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + secret.encode() + after).decode()
        shown = Redactor({"KEY": secret}).text(text)
        assert "[redacted:KEY]" in shown


def test_the_longer_of_two_secrets_wins() -> None:
    """One that contains another is hidden whole."""
    redactor = Redactor({"SHORT": "hunter2", "LONG": "hunter2-and-more"})
    assert redactor.text("x hunter2-and-more hunter2") == "x [redacted:LONG] [redacted:SHORT]"


def test_a_secret_of_several_lines_is_hidden_line_by_line() -> None:
    """A private key in a log is many lines."""
    redactor = Redactor({"PEM": "-----BEGIN KEY-----\nabcdefgh\nij\n"})
    assert redactor.text("got: abcdefgh") == "got: [redacted:PEM]"
    assert redactor.text("ij") == "ij"


@pytest.mark.parametrize("value", ["", "a", "abcd", "    ", "\n\n"])
def test_very_short_values_are_left_alone(value: str) -> None:
    """They would take ordinary words out of every line."""
    assert Redactor({"KEY": value}).text(f"x{value}y abcd") == f"x{value}y abcd"


def test_structures_are_redacted_keys_included() -> None:
    """Events and results are nested; numbers and nothing stay what they are."""
    redactor = Redactor({"KEY": "hunter2"})
    value = {"hunter2": ["a hunter2", ("hunter2", 3)], "n": None, "f": 1.5}
    assert redactor.value(value) == {
        "[redacted:KEY]": ["a [redacted:KEY]", ["[redacted:KEY]", 3]],
        "n": None,
        "f": 1.5,
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:token@example.org/x.git", "https://example.org/x.git"),
        ("https://token@example.org/x.git", "https://example.org/x.git"),
        ("https://example.org/a@b", "https://example.org/a@b"),
        ("ssh://git@example.org/x", "ssh://example.org/x"),
        ("/home/me/repo", "/home/me/repo"),
        ("https://me:p@ss@example.org/x", "https://example.org/x"),
        ("http://grid/wd/hub?token=abc&x=1", "http://grid/wd/hub?token=&x=1"),
        ("url: /status?apiKey=abc (Caused by", "url: /status?apiKey= (Caused by"),
    ],
)
def test_urls_lose_their_credentials(url: str, shown: str) -> None:
    """User and password go, the rest stays."""
    assert without_credentials(url) == shown


@given(SECRETS)
def test_a_secret_is_gone_from_a_traceback(secret: str) -> None:
    """Python shows values as it would read them, with backslashes before quotes that depend on the whole text."""
    redactor = Redactor({"KEY": secret})
    for shown in (repr(secret), ascii(secret), repr([secret, "'", '"']), repr(secret.encode())):
        assert "[redacted:KEY]" in redactor.text(f"KeyError: {shown}")


@given(SECRETS)
def test_a_secret_is_gone_from_json_in_json(secret: str) -> None:
    """As a service answers that passes on another's answer as a text."""
    document = json.dumps({"answer": json.dumps({"token": secret})})
    assert "[redacted:KEY]" in Redactor({"KEY": secret}).text(document)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("Pa$$!wo(rd)@1", "Pa%24%24!wo(rd)%401"),  # encodeURIComponent
        ("x'y z*w~1", "x%27y+z*w%7E1"),  # a form
        ("ab/cd+ef&gh<ij", "ab/cd+ef&amp;gh&lt;ij"),  # HTML
        ("ab'cd\"ef", "ab&#39;cd&quot;ef"),
        ("ab'cd\"ef", "ab&#x27;cd&quot;ef"),
        ("ab'cd\"ef", "ab'cd&quot;ef"),
        ("ab/cd+ef&gh<ij", "ab\\/cd+ef&gh<ij"),  # JSON by PHP
        ("ab/cd+ef&gh<ij", "ab/cd+ef\\u0026gh\\u003cij"),  # by Go
    ],
)
def test_a_secret_is_gone_from_pages_and_answers(secret: str, shown: str) -> None:
    """As browsers, pages and services write it."""
    assert Redactor({"KEY": secret}).text(f"a {shown} b") == "a [redacted:KEY] b"


def test_hexadecimal_digits_of_a_url_may_be_small() -> None:
    """Java and .NET write them so."""
    assert Redactor({"KEY": "a/b?c=d"}).text("t=a%2fb%3fc%3dd") == "t=[redacted:KEY]"


@dataclass(frozen=True)
class Told:
    """A value that JSON does not have."""

    value: object


class Stubborn:
    """One whose text is an error."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


PLAIN = SECRETS.filter(lambda text: "\0" not in text and "/" not in text)
WRAPPED = st.recursive(
    st.sampled_from(
        [
            str,
            str.encode,
            Path,
            ValueError,
            KeyError,
            OSError,
            Told,
            lambda text: Told(text.encode()),
        ]
    ),
    lambda inner: st.one_of(
        inner.map(lambda wrap: lambda text: [wrap(text)]),
        inner.map(lambda wrap: lambda text: (1, wrap(text))),
        inner.map(
            lambda wrap: lambda text: {wrap(text): None} if wrap is str else {"key": wrap(text)}
        ),
        inner.map(lambda wrap: lambda text: Told(wrap(text))),
    ),
    max_leaves=3,
)


@given(PLAIN, WRAPPED)
def test_a_secret_is_gone_from_any_value(secret: str, wrap: Callable[[str], object]) -> None:
    """Errors, paths, bytes, sets and objects too: a sink makes a text of them after everything else."""
    clean = Redactor({"KEY": secret}).value(wrap(secret))
    text = json.dumps(
        clean, ensure_ascii=False
    )  # without `default`: nothing is left that JSON does not have
    assert "[redacted:KEY]" in text


@given(PLAIN)
def test_a_secret_is_gone_from_sets_and_keys(secret: str) -> None:
    """Of whatever type they are."""
    redactor = Redactor({"KEY": secret})
    value = {
        "set": {secret},
        "frozen": frozenset({secret.encode()}),
        Path(secret): 1,
        secret.encode(): 2,
    }
    text = json.dumps(redactor.value(value))
    assert text.count("[redacted:KEY]") >= 3


def test_a_value_without_a_text_is_named() -> None:
    """The log must not end what it is about."""
    assert Redactor({"KEY": "hunter2"}).value(Stubborn()) == "<Stubborn>"


def test_of_a_record_the_sentences_are_redacted() -> None:
    """Names stay, by which things are found."""
    redactor = Redactor({"KEY": "hunter2"})
    record = JobRecord(
        run="20261122T064205Z-3f9a1c",
        name="hunter2",
        status=JobStatus.FAILED,
        message="no hunter2",
        notes=("hunter2?",),
        finished=datetime(2026, 11, 22, tzinfo=UTC),
    )
    clean = redactor.record(record)
    assert (clean.name, clean.message) == ("hunter2", "no [redacted:KEY]")
    assert clean.notes == ("[redacted:KEY]?",)
    assert redactor.field("warnings", ("hunter2",)) == ("[redacted:KEY]",)
    stale = Stale(wanted="v2", reason="hunter2", age_seconds=1)
    assert redactor.field("stale", stale) == Stale(
        wanted="v2", reason="[redacted:KEY]", age_seconds=1
    )
    assert redactor.record(clean) == clean


def test_a_redacted_sentence_still_fits_its_record() -> None:
    """The mask is longer than the secret: a job whose message was full of it could not be committed."""
    redactor = Redactor({"A_TOKEN_OF_THE_SHOP": "hunter2"})
    record = JobRecord(
        run="20261122T064205Z-3f9a1c",
        name="a",
        status=JobStatus.FAILED,
        message="hunter2 " * 250,
        finished=datetime(2026, 11, 22, tzinfo=UTC),
    )
    JobRecord.model_validate(redactor.record(record).model_dump())
