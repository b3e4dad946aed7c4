"""Which path a job's file gets in the bucket, whatever its name is on the disk. Decisions only.

Most names are their own path. One that a bucket, a listing or a Data Package cannot hold becomes `<what can be
read>~<32 hex digits><ending>`: the digits are of the SHA-256 of the name, so that no two names meet. A name that looks
like that already is treated in the same way. The manifest has the original, as `written` gives it, in `mayfly:path`.

A name is a relative path as Python has it from the disk: bytes that are not UTF-8 are surrogates in it.
"""

import re
from hashlib import sha256
from urllib.parse import unquote_to_bytes

MAX_PATH_BYTES = 700
"""S3 keys end at 1024 bytes of UTF-8; the rest is room for the prefix, the run id and the job's name."""

MAX_NAME_BYTES = 240
"""File systems end at 255; a local bucket, and whoever fetches a file, adds something to a name while it is written."""

MAX_KEY_BYTES = 600
"""Of a path in the folder of a job or of its evidence, which itself has less than 100 bytes."""
MAX_DISK_PATH_BYTES = 4095
"""Linux opens no longer path (PATH_MAX); what is deeper can be made, step by step, and used by hardly any program."""
READABLE_BYTES = 120
"""What is kept of a name that is not its own path."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NO_XML = re.compile(r"[\ufffe\uffff]")
_UPLOADING = re.compile(r"(^|/)[^/#]*#[0-9]+$")
_ENCODED = re.compile(r"~[0-9a-f]{32}(\.[0-9A-Za-z]{1,10})?$")
_ENDING = re.compile(r"\.[0-9A-Za-z]{1,10}$")
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\#~\ud800-\udfff\ufffe\uffff]")
_ESCAPED = re.compile(r"[%\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def path_problem(path: str) -> str | None:
    """Return why a relative POSIX path cannot be a resource, or None when it can.

    The rules are the narrowest that a file system, S3 and the Data Package standard have in common: the same run must
    be deliverable to `file://` and to `s3://`, and be fetched back from either.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    parts = path.split("/")
    rules = (
        (size > MAX_PATH_BYTES, f"its path is longer than {MAX_PATH_BYTES} bytes"),
        (
            any(len(part.encode()) > MAX_NAME_BYTES for part in parts),
            f"its path has a name longer than {MAX_NAME_BYTES} bytes",
        ),
        (not path or path.startswith("/"), "its path is not relative"),
        (_CONTROL.search(path), "its name has control characters"),
        ("\\" in path, "its name has a backslash"),
        (_NO_XML.search(path), "its name has a character that no listing of S3 can hold"),
        (not {"", ".", ".."}.isdisjoint(parts), "its path has an empty or a dot segment"),
        (
            _UPLOADING.search(path),
            "its name ends in # and digits, which local buckets keep for uploads under way",
        ),
    )
    return next((problem for broken, problem in rules if broken), None)


def bucket_path(name: str) -> str:
    """Return the path of a file in the folder that the bucket has for it: `path_problem` finds nothing in it."""
    path = "/".join(map(_segment, name.split("/")))
    if len(path.encode()) <= MAX_KEY_BYTES:
        return path
    # Only a name with folders is so long; its digest is no segment's, because no segment has a slash.
    return _encoded(name.rpartition("/")[2], of=name)


def written(name: str) -> str:
    """Return a name as a text that every reader can hold, and `parse_written` turns back.

    `%`, control characters and bytes that are not UTF-8 become `%` and two hex digits for each byte, as in a URL.
    """
    return _ESCAPED.sub(lambda match: _percent(match.group()), name)


def parse_written(text: str) -> str:
    """Return the name that `written` gave as this text.

    Raises:
        ValueError: It is no name of a file below a folder.
    """
    raw = unquote_to_bytes(text)
    name = raw.decode("utf-8", "surrogateescape")
    if len(raw) > MAX_DISK_PATH_BYTES or "\0" in name:
        raise ValueError("it is longer than a path can be, or has a null byte")
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("it is not the path of a file below a folder")
    return name


def _segment(name: str) -> str:
    if path_problem(name) is None and not _ENCODED.search(name):
        return name
    return _encoded(name, of=name)


def _encoded(name: str, *, of: str) -> str:
    ending = match.group() if (match := _ENDING.search(name)) else ""
    stem = _UNREADABLE.sub("_", name.removesuffix(ending)).encode()[:READABLE_BYTES]
    digest = sha256(_raw(of)).hexdigest()[:32]
    return f"{stem.decode(errors='ignore')}~{digest}{ending}"


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in _raw(character))


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
