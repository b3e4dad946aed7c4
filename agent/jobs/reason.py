"""Why a program failed: the line that says it, found in the end of its output. Decisions only.

Few programs say it last: a stack, the version of an interpreter or a progress bar follows. What is not found here is
in the job's log all the same.
"""

import re
from collections.abc import Iterator, Sequence

LONGEST = 500

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SERVICE = re.compile(r"^[\w.-]+ +\| (?=\S|$)")
"""What compose writes before a line of a service."""
_PROGRESS = re.compile(
    r" ?(?:Network|Volume|Container|Image|Service)? ?\S+ {1,2}"
    r"(?:Creat|Start|Stopp?|Pull|Build|Built|Runn|Wait|Exit|Remov|Health|Recreat)(?:e|ed|ing|y)?$"
)
"""What compose says of its own work: no reason of a program that said nothing."""

_NOISE = re.compile(
    r"""
    [\W_]*$                                              # nothing, rules, carets, brackets
    | [^|]*\d%\|[^|]*\|                                  # tqdm
    | [\W\d_]{0,40}\d\ ?%[\W\d_]*(?:\w+/s|eta\b.*)?$      # other bars
    | \#\d+\ 0x[0-9a-f]+                                 # Chrome's stack
    | \s*(?:at|from)\ \S                                 # of Node, Java, .NET; of Ruby
    | \s*\.\.\.\ \d+\ (?:more|common\ frames)            # Java
    | Node\.js\ v\d | Deno\ \d
    | goroutine\ \d | exit\ status\ \d | \[signal\ SIG    # Go
    | note:\ (?:run\ with|Some\ details)                 # Rust
    | (?:Stacktrace|Stack\ trace|\[stacktrace\]):?\s*$
    | make(?:\[\d+\])?:\ \*\*\* | npm\ (?:ERR!|error|notice) | error\ Command\ failed
    | sys:1:\ | \s*warnings\.warn\(
    """,
    re.VERBOSE,
)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\s*$")
_EXCEPTION = re.compile(
    r"(?:Uncaught (?:\(in promise\) )?)?(?:[A-Za-z_][\w$]*\.)*"
    r"(?:[A-Z_][\w$]*)?(?:Error|Exception|Interrupt|Exit)(?: \[\w+\])?(?::|\s*$)"
)
_ONE_LINE = re.compile(
    r"""
    Exception\ in\ thread\ ".*?" | Caused\ by:\          # Java
    | panic:\  | fatal\ error:\                          # Go
    | \S+:\d+:in\ .+\(\w[\w:]*\)$                        # Ruby
    | (?:PHP\ )?Fatal\ error:\                           # PHP
    | Unhandled\ [Ee]xception                            # .NET
    | error:\ Uncaught\                                  # Deno
    """,
    re.VERBOSE,
)
_TWO_LINES = re.compile(r"thread '.*' .*panicked at .*:$|terminate called after throwing ")
"""Rust, C++: what was thrown is on the next line."""
_CAUSED = "Caused by: "
_WORDS = re.compile(
    r"\b(?:failed|failure|giving up|gave up|abort(?:ed|ing)?|exiting)\b", re.IGNORECASE
)
_LEVEL = re.compile(r"\[?(?:\d{4}-\d\d-\d\d|(?:error|fatal|critical)\b)", re.IGNORECASE)
_QUIET = re.compile(r"\b(?:INFO|DEBUG)\b")


def reason_of_output(lines: Sequence[str]) -> str:
    """Return which of the last lines says why a program failed, in at most `LONGEST` characters; empty for none."""
    plain = [_plain(line) for line in lines if not _PROGRESS.match(line)]
    last = next((at for at in reversed(range(len(plain))) if not _NOISE.match(plain[at])), None)
    found = list(_exceptions(plain))
    if found and not _concludes(plain, last, found[-1][0]):
        return _with_cause([text for _, text in found])[:LONGEST]
    if last is not None:
        return plain[last].strip()[:LONGEST]
    return next((line.strip()[:LONGEST] for line in reversed(plain) if line.strip()), "")


def _plain(line: str) -> str:
    """Return a line as a terminal shows it: a progress bar overwrites itself."""
    parts = [part for part in _ESCAPES.sub("", line).split("\r") if part.strip()]
    shown = next((part for part in reversed(parts) if not _NOISE.match(part)), "".join(parts[-1:]))
    return _SERVICE.sub("", shown).rstrip()


def _exceptions(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield index and text of the lines that name an exception."""
    after_traceback = False
    for at, line in enumerate(lines):
        if _TRACEBACK.search(line):
            after_traceback = True
            continue
        text = line.strip()
        if after_traceback and (not line or line[0].isspace()) and not line.startswith("  | "):
            continue
        if after_traceback and line.startswith("  | "):  # of a group of exceptions
            text = line.removeprefix("  | ")
            if text.startswith(" "):
                continue
        if after_traceback or _EXCEPTION.match(line) or _ONE_LINE.match(line):
            yield at, text
        elif _TWO_LINES.match(line):
            yield at, " ".join((text, *(more.strip() for more in lines[at + 1 : at + 2])))
        after_traceback = False


def _concludes(lines: Sequence[str], last: int | None, exception: int) -> bool:
    """Tell whether the program caught the exception and ends with a message of its own."""
    if last is None or last <= exception:
        return False
    line = lines[last]
    if line[:1].isspace() or _QUIET.search(line):
        return False
    return bool(_LEVEL.match(line) or _WORDS.search(line))


def _with_cause(found: Sequence[str]) -> str:
    """Return the last exception; for Java, which prints causes below it, with the last cause."""
    last = found[-1]
    head = next((text for text in reversed(found) if not text.startswith(_CAUSED)), "")
    if not last.startswith(_CAUSED) or last.removeprefix(_CAUSED) in head:
        return head or last
    return f"{head}; {last}" if head else last
