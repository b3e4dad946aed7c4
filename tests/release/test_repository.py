"""A repository's address, what it offers, and what git's complaints mean."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.release.repository import (
    Repository,
    Trouble,
    Wanted,
    candidates,
    parse_refs,
    parse_repository,
    trouble_of,
)

A, B, C, LONG = "a" * 40, "b" * 40, "c" * 40, "d" * 64
SERVER = "https://example.com"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/my scrapers", Repository("/srv/my scrapers", "file")),
        ("~/scrapers", Repository("/home/me/scrapers", "file")),
        ("file:///srv/a%20b.git", Repository("/srv/a b.git", "file")),
        ("git@example.com:me/s.git", Repository("git@example.com:me/s.git", "ssh")),
        ("ssh://git@example.com:22/s", Repository("ssh://git@example.com:22/s", "ssh")),
        (f"{SERVER}/me/s.git", Repository(f"{SERVER}/me/s.git", "http:https", SERVER)),
        (
            "https://me:p%40ss@example.com:8443/s",
            Repository(f"{SERVER}:8443/s", "http:https", f"{SERVER}:8443", "me", "p@ss"),
        ),
        (
            "https://token@example.com/s",
            Repository(f"{SERVER}/s", "http:https", SERVER, "token"),
        ),
    ],
)
def test_addresses_are_taken_apart(text: str, expected: Repository) -> None:
    """Credentials leave the URL; each address may use its own protocol and no other."""
    assert parse_repository(text, "/home/me") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "scrapers", "./scrapers", "~other/scrapers", "file://otherhost/s"),
        *("-oProxyCommand=touch /tmp/x", "ssh://-oProxyCommand=x/s", "-host:path", "host:-path"),
        *("ext::sh -c id", "ext::sh", "fd::17", "git://example.com/s.git", "ftp://example.com/s"),
        *("https://example.com", "https:///s.git", "https://example.com/s?x=1"),
        *("ssh://git:secret@example.com/s", "https://example.com/s\n"),
        *("/srv/a\0b", "file:///srv/a%00b"),
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    """Options, other transports, relative paths and half a URL are refused, without repeating them."""
    with pytest.raises(ValueError, match=r"^(is|has) ") as caught:
        parse_repository(text, "/home/me")
    assert "secret" not in str(caught.value)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8))
def test_a_password_is_never_shown(password: str) -> None:
    """Neither the URL nor the value's own text has it, whatever its characters."""
    secret = f"S3CRET{password}"
    found = parse_repository(f"https://me:{quote(secret, safe='')}@example.com/s", None)
    assert found.password == secret
    assert "S3CRET" not in found.url + repr(found)


def test_refs_are_read_with_tags_looked_through() -> None:
    """An annotated tag is the commit it points to; a branch is its head; no commit's name has 50 digits."""
    listing = (
        f"{A}\trefs/tags/v1\n{B}\trefs/tags/v1^{{}}\n{LONG}\trefs/tags/v2\n"
        f"{LONG[:50]}\trefs/tags/v3\n{A}\trefs/heads/main\n"
    )
    refs = {"refs/tags/v1": B, "refs/tags/v2": LONG, "refs/heads/main": A}
    assert parse_refs(listing.encode()) == refs


@pytest.mark.parametrize(
    "name",
    [
        *("v1:refs/heads/x", "v*", "-v1", "v1..2", "v1 x", "v@{1}", "v\x1b[31m", "v1.lock", "v^"),
        *("a//b", "v" + "9" * 5000),
    ],
)
def test_names_that_no_repository_can_have_are_left_out(name: str) -> None:
    """A server may say anything; what git itself would not name is not asked for."""
    assert parse_refs(f"{A}\trefs/tags/{name}\n".encode()) == {}


@given(st.binary())
def test_no_answer_of_a_server_breaks_the_reading(listing: bytes) -> None:
    """Garbage is left out."""
    assert all(len(commit) in {40, 64} for commit in parse_refs(listing).values())


def test_candidates_are_the_tags_of_the_track_or_the_branch() -> None:
    """`track` chooses among tags, the newest first, `branch` takes that branch; what is not there is not offered."""
    refs = {"refs/tags/v1.9": A, "refs/tags/v1.10": B, "refs/heads/main": C}
    newer, older = Wanted("v1.10", "refs/tags/v1.10", B), Wanted("v1.9", "refs/tags/v1.9", A)
    assert candidates(refs, None, None) == (newer, older)
    assert candidates(refs, "v1.9*", None) == (older,)
    assert candidates(refs, "v1.9", None) == (older,)
    assert candidates(refs, None, "main") == (Wanted("main", "refs/heads/main", C),)
    assert candidates(refs, "x*", None) == ()
    assert candidates(refs, None, "dev") == ()


@pytest.mark.parametrize(
    ("complaint", "trouble"),
    [
        ("fatal: unable to access 'https://x/': Could not resolve host: x", Trouble.UNREACHABLE),
        ("fatal: unable to access 'x': Failed to connect to x port 443", Trouble.UNREACHABLE),
        ("error: RPC failed; curl 28 Operation too slow", Trouble.UNREACHABLE),
        ("fatal: unable to access 'x': The requested URL returned error: 503", Trouble.UNREACHABLE),
        ("fatal: the remote end hung up unexpectedly", Trouble.UNREACHABLE),
        ("ssh: connect to host x port 22: Connection refused", Trouble.UNREACHABLE),
        ("fatal: Authentication failed for 'https://x/'", Trouble.REFUSED),
        ("fatal: could not read Username for 'https://x': terminal prompts", Trouble.REFUSED),
        ("git@x: Permission denied (publickey). fatal: Could not read", Trouble.REFUSED),
        ("Host key verification failed.", Trouble.REFUSED),
        ("fatal: unable to access 'x': The requested URL returned error: 403", Trouble.REFUSED),
        ("fatal: unable to access 'x': SSL certificate problem: expired", Trouble.REFUSED),
        ("fatal: repository 'https://x/' not found", Trouble.MISSING),
        ("ERROR: Repository not found.", Trouble.MISSING),
        ("fatal: '/x' does not appear to be a git repository", Trouble.MISSING),
        ("fatal: couldn't find remote ref refs/tags/v1", Trouble.MISSING),
        ("fatal: fsck error in packed object", Trouble.OTHER),
        ("error: object file is empty", Trouble.OTHER),
        ("", Trouble.OTHER),
    ],
)
def test_complaints_mean_something(complaint: str, trouble: Trouble) -> None:
    """What is worth another try is told from what will be the same tomorrow."""
    assert trouble_of(complaint) is trouble
