"""Secrets in addresses and in the environment. Decisions only."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

LONG = 16
"""Characters from which a part of an address counts as a token, if nothing says what it is."""

REVEALING_NAMES = r"(?i:token|secret|passw|pwd|api_?key|access_?key|auth|sig|cred|jwt)"
"""Parts of the names of secrets in a query."""

PUBLIC = frozenset(
    {
        *("anonymous", "git", "gitlab-ci-token", "oauth2", "token", "x-access-token"),
        *("x-oauth-basic", "x-token-auth"),
    }
)
"""User names and passwords that accompany a token and are no secrets."""

_WHOLE = (("notify", "healthchecks"), ("notify", "apprise"))
"""Settings that are secrets as a whole: whoever has a ping URL can silence the alarm."""

_ADDRESSES = (
    ("release", "repository"),
    ("store", "url"),
    ("store", "endpoint"),
    ("browser", "url"),
)
_SECRET = re.compile(
    r"(?i:(?!mayfly_)\w*(?:password|passwd|token|secret|secret_key|access_key|api_key))"
)
"""Names of variables that hold secrets."""

SHORTEST_VALUE = 8
"""Such a name may also have a word like `false` as its value."""

_BETWEEN = "[/:@?&=#;,\uff0f\uff1a\uff20\uff1f\uff03]"
"""What stands between the parts of an address, also as a Japanese keyboard may write it."""
_PROXY = re.compile(r"(?i:\w+_proxy)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,;'\"]+")


def url_secrets(url: str) -> tuple[str, ...]:
    """Return the secrets in an address, as written and decoded: in its login and its query.

    A user name counts as one if it is a token: without a password, with a meaningless one, or if it is long.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # it is no address, and has a login all the same
        login = url.partition("//")[2].rpartition("@")[0]
        return tuple(filter(None, (login, login.partition(":")[2])))
    found = [*_login(parts), *_query(parts.query), *_query(parts.fragment)]
    return tuple(
        dict.fromkeys(form for text in found for form in (text, unquote(text), unquote_plus(text)))
    )


def _login(parts: SplitResult) -> Iterator[str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    told = {user, password} - PUBLIC - {""}
    if password in told:
        yield password
    is_name = "ssh" in parts.scheme or (password in told and len(user) < LONG)
    if user in told and not is_name:
        yield user


def _query(query: str) -> Iterator[str]:
    for part in re.split("[&;]", query):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "", name
        if len(value) >= LONG or (name and re.search(REVEALING_NAMES, name)):
            yield value


def whole_secrets(url: str) -> tuple[str, ...]:
    """Return the secrets of an address that is itself a secret: all of it, and each part that would reveal it."""
    try:
        host = urlsplit(url).hostname
    except ValueError:  # it is no address, and may be a secret all the same
        host = None
    long = (part for part in re.split(_BETWEEN, url) if len(part) >= LONG and part != host)
    return tuple(dict.fromkeys((url, *url_secrets(url), *long)))


def settings_secrets(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets in a configuration, which may have faults, by name."""
    secrets: dict[str, str] = {}
    for places, look in ((_WHOLE, whole_secrets), (_ADDRESSES, url_secrets)):
        for section, key in places:
            texts = [text for url in _texts(data, section, key) for text in look(url)]
            secrets |= _named(f"{section}.{key}", texts)
    return secrets


def environment_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets in an environment, by name: in addresses such as a proxy's, and in variables so named."""
    secrets: dict[str, str] = {}
    for name, value in sorted(environ.items()):
        bare = _PROXY.fullmatch(name) and "://" not in value
        urls = [f"http://{value}"] if bare else _URL.findall(value)
        texts = [text for url in urls for text in url_secrets(url)]
        if _SECRET.fullmatch(name) and len(value) >= SHORTEST_VALUE:
            texts.append(value)
        secrets |= _named(name, texts)
    return secrets


def _texts(data: Mapping[str, Any], section: str, key: str) -> list[str]:
    table = data.get(section)
    value = table.get(key) if isinstance(table, Mapping) else None
    return [
        text
        for text in (value if isinstance(value, list | tuple) else [value])
        if isinstance(text, str)
    ]


def _named(name: str, texts: list[str]) -> dict[str, str]:
    return {
        f"{name} {number}" if number > 1 else name: text for number, text in enumerate(texts, 1)
    }
