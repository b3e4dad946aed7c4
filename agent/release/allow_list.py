"""The part of the agent's environment that git and uv get: never its secrets."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_ALWAYS = (
    *("PATH", "TMPDIR", "TZ"),
    *("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"),
    *("NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"),
)
_MARK = "MAYFLY_RELEASES_BESIDE"


def passed(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the variables that every program gets, and those of `names`, as far as they are set."""
    wanted = {"PATH": os.defpath} | dict(environ)
    return {name: wanted[name] for name in (*_ALWAYS, *names) if name in wanted}


def mark(mirror: Path) -> dict[str, str]:
    """Return the variable that identifies programs of a killed agent: they must not write beside its successor's."""
    return {_MARK: str(mirror)}


def mark_text(mirror: Path) -> str:
    """Return the same in the form of `processes.kill_marked`."""
    return f"{_MARK}={mirror}"
