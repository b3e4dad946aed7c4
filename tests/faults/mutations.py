"""Bad input made from good: documents whose parts are replaced, removed, repeated and mixed, and texts that are cut."""

import functools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]


class Raw(str):
    """Text that stands in a document as it is, such as a number that no Python value has."""

    __slots__ = ()


FRAGMENTS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320,
    *map(Raw, ("1" * 5000, "1e999", "-1e999", "NaN", "Infinity", "0x" + "f" * 5000, "nan", "inf", "07", "1_000")),
    *map(Raw, ("[" * 3000, "[" * 200_000, '{"a":' * 3000, "{" * 3000, "[[]" * 200, "", ",", '"', "'''", "\\")),
    Raw("[" * 500 + "]" * 500), Raw('{"a":' * 500 + "1" + "}" * 500), Raw("a.b.c = 1"), Raw("[[job]]"),
    Raw("2026-11-22"),
    Raw("2026-11-22T06:42:05"), Raw("23:59:60"), Raw("0001-01-01T00:00:00+23:59"), Raw('"\\ud83d\\ude00"'),
    Raw('"\\ud800"'),
    "", " ", "\0", "a\0b", "\n", "\r\n", "\x1b[31m", "\u202e", "\ud800", "\ufeff", "\u00b2", "\u0661",
    "\U0001f98b", "\ufffd",
    "x" * 300, "x" * 9_000, "../x", "/etc/passwd", "a/../../b", "a//b", "con", ".", "..", "-", "--", "-rf", "$(id)",
    "x#1", "quotes/x#1", "C:\\x", "~", "~root/x", "%s%n", "{0}", "{}", "null", "[]", "http://[", "http://[::1",
    "file:///%00",
    "file:///\0", "s3://", "s3:///", "s3://a:b@c/d?e#f", "https://u:p%zz@h:99999/", "http://h:port/", "ssm:/",
    "ssm://..//",
    "mayfly >= 99999999999", "mayfly >= " + "9" * 5000, "v" + "9" * 5000, "mon..", "..fri", "mon..xyz", ",",
    "1h1h", "0s", "9" * 400 + "d",
    "1e3s", "0.0000001s", "9" * 400 + "GiB", "1.5.5GB", "20261122T064205Z-3f9a1c", "99999999T999999Z-ffffff",
    "00000000T000000Z-000000",
    "20260230T000000Z-000000", "index/20261122T064205.000Z-20261122T064205Z-3f9a1c.json",
    "index/99999999T999999.999Z-99999999T999999Z-ffffff.json",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-11-22T06:42:05", "2026-11-22T06:42:05+14:00",
    "-1", "1e400", "00010101T000000.000Z",
    "99991231T235959.999Z", "sha256:" + "0" * 64, "0" * 64, "succeeded", "failed", "skipped", "out_of_memory",
    "spot", "poweroff",
    [], {}, [[]], [{}], [None], {"": None}, {"\0": 1}, {"name": "x"}, {"name": "x", "command": ["x"]}, ["quotes"],
    ["quotes", "quotes"],
    {"A": "b"}, {"A\0": "b"}, {"A=": "b"}, ["a\0b"], {"x": 1e308, "y": 2}, [0] * 300, {f"k{n}": ["1", "2", "3",
    "4", "5", "6", "7", "8", "9"] for n in range(12)},
    {"total_usd": -1}, {"key": "x", "bytes": 1, "sha256": "0" * 64},
)  # fmt: skip
"""What has broken readers of text before, or could: numbers, nesting, times, names, addresses."""

TOKENS = tuple(
    token.encode()
    for token in (
        *"[]{}\"'\\,:=\n\r\t#\0-+.$", "[[", "]]", '"""', "'''", "\\u0000", "\\ud800", "\\U0010ffff", "1e9999",
        "9" * 4301, "0x", "nan", "null", "true", "\ufeff", "export ", '="', "[" * 2000, '{"a":' * 2000,
    )
) + tuple(map(bytes.fromhex, ("ff", "c080", "eda080", "f09f", "80")))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a document.

    Attributes:
        spot: Which of its nodes, counted from the root; taken modulo how many there are.
        kind: What happens to it; modulo how many kinds there are.
        part: With what; modulo how many fragments there are.
    """

    spot: int
    kind: int
    part: int


def edited(document: Any, edits: Sequence[Edit]) -> Any:
    """Return a copy of a JSON-like document after some changes."""
    for edit in edits:
        paths = [*_paths(document)]
        other = _at(document, paths[edit.part % len(paths)])
        change = functools.partial(_changed, edit=edit, other=other)
        document = _replaced(document, paths[edit.spot % len(paths)], change)
    return document


def _changed(node: Any, edit: Edit, other: Any) -> Any:
    """Return what stands in a node's place; `other` is a node from elsewhere in its document."""
    fragment = FRAGMENTS[edit.part % len(FRAGMENTS)]
    match edit.kind % 7:
        case 0:
            return _with(node, fragment, edit.part)
        case 1:
            return _without(node, edit.part)
        case 2:
            return [node] * (edit.part % 40)
        case 3:
            return other
        case 4:
            return _joined(node, fragment)
        case _:  # what finds most has a double chance
            return fragment


def _paths(node: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _paths(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _paths(value, (*path, number))


def _at(node: Any, path: Path) -> Any:
    for step in path:
        node = node[step]
    return node


def _replaced(node: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(node)
    step, *rest = path
    if isinstance(node, dict):
        return {**node, step: _replaced(node[step], tuple(rest), change)}
    copy = list(node)
    copy[int(step)] = _replaced(node[step], tuple(rest), change)
    return copy


def _with(node: Any, fragment: Any, number: int) -> Any:
    """Return a node with one more child; a text or a number gets a neighbour."""
    if isinstance(node, dict):
        key = fragment if isinstance(fragment, str) else f"key-{number}"
        return {**node, key: fragment}
    return [*node, fragment] if isinstance(node, list) else [node, fragment]


def _without(node: Any, number: int) -> Any:
    if isinstance(node, dict) and node:
        gone = list(node)[number % len(node)]
        return {key: value for key, value in node.items() if key != gone}
    return node[:-1] if isinstance(node, list | str) else None


def _joined(node: Any, fragment: Any) -> Any:
    """Return a text with another one in its middle."""
    if not isinstance(node, str) or not isinstance(fragment, str):
        return fragment
    half = len(node) // 2
    return f"{node[:half]}{fragment}{node[half:]}"


def json_text(document: Any) -> bytes:
    """Return a document as JSON, or as what looks like it where it holds `Raw`."""
    if isinstance(document, Raw):
        text = str(document)
    elif isinstance(document, dict):
        pairs = (
            f"{json.dumps(key)}: ".encode() + json_text(item) for key, item in document.items()
        )
        return b"{" + b", ".join(pairs) + b"}"
    elif isinstance(document, list):
        return b"[" + b", ".join(map(json_text, document)) + b"]"
    else:
        text = json.dumps(document)
    return text.encode(errors="surrogatepass")


def toml_text(document: Any) -> bytes:
    """Return a document as TOML: each key of the root on a line, with inline tables; an approximation is enough."""
    if not isinstance(document, dict):
        return _toml_value(document)
    lines = (_toml_key(key) + b" = " + _toml_value(value) for key, value in document.items())
    return b"\n".join(lines) + b"\n"


def _toml_key(key: str) -> bytes:
    return json.dumps(key, ensure_ascii=False).encode(errors="surrogatepass")


def _toml_value(value: Any) -> bytes:
    if isinstance(value, dict):
        pairs = (_toml_key(key) + b" = " + _toml_value(item) for key, item in value.items())
        return b"{ " + b", ".join(pairs) + b" }"
    if isinstance(value, list):
        return b"[" + b", ".join(map(_toml_value, value)) + b"]"
    return b"'null'" if value is None else json_text(value)


def env_text(document: Any) -> bytes:
    """Return a document as lines of `NAME=value`, values as they are."""
    pairs = document.items() if isinstance(document, dict) else [("A", document)]
    lines = (
        f"{name}={value if isinstance(value, str) else json_text(value).decode(errors='replace')}"
        for name, value in pairs
    )
    return "\n".join(lines).encode(errors="surrogatepass")


def bruised(text: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a text after changes that know nothing of what it means."""
    for edit in edits:
        spot = edit.spot % (len(text) + 1)
        token = TOKENS[edit.part % len(TOKENS)]
        end = spot + edit.part % 64
        texts: Sequence[bytes] = (
            text[:spot],
            text[:spot] + text[end:],
            text[:spot] + token + text[spot:],
            text[:spot] + token + text[end:],
            text[:spot] + text[spot:end] * (edit.part % 20) + text[spot:],
            text[:spot] + bytes([edit.part % 256]) + text[spot + 1 :],
        )
        text = texts[edit.kind % len(texts)]
    return text


def random_edits(source: random.Random, most: int) -> list[Edit]:
    """Return up to `most` changes, at least one."""
    count = source.randint(1, most)
    return [Edit(*(source.randrange(10_000) for _ in range(3))) for _ in range(count)]


EDITS = st.builds(Edit, *(st.integers(0, 9_999) for _ in range(3)))


def texts(documents: Sequence[Any], dump: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy: good documents with parts changed, the same as texts that are cut, and any bytes."""
    changed = st.builds(
        lambda document, edits: dump(edited(document, edits)),
        st.sampled_from(documents),
        st.lists(EDITS, max_size=4),
    )
    cut = st.builds(bruised, changed, st.lists(EDITS, min_size=1, max_size=3))
    # Twice: changed documents get deeper into the readers than cut ones do.
    return changed | changed | cut | st.binary(max_size=200)
