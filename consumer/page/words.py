"""The languages of the page: texts by gettext, ages by humanize. English is in the code, others in `locale/*.po`."""

import gettext
import io
import struct
from ast import literal_eval
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

NAMES = {"en": "English", "ja": "日本語"}
_HUMANIZE = {"ja": "ja_JP"}


@dataclass(frozen=True, slots=True)
class Language:
    """A language.

    Attributes:
        tag: As HTML has it.
    """

    tag: str
    texts: gettext.NullTranslations

    def __call__(self, text: str, /, **values: object) -> str:
        """Return a text, with its gaps filled."""
        return self.texts.gettext(text).format(**values)

    def count(self, one: str, many: str, n: int, /, **values: object) -> str:
        """Return a text that depends on a number, `{n}`."""
        return self.texts.ngettext(one, many, n).format(n=f"{n:,}", **values)

    def ago(self, moment: datetime, now: datetime) -> str:
        """Return how long ago something was, or in how long it will be."""
        import humanize  # noqa: PLC0415 -- of the extra `home`, which the command line does without

        # The language is the thread's, and threads are shared.
        if self.tag in _HUMANIZE:
            humanize.activate(_HUMANIZE[self.tag])
        try:
            return humanize.naturaltime(now - moment)
        finally:
            humanize.deactivate()


@cache
def language(tag: str) -> Language:
    """Return the language with a tag of `NAMES`."""
    source = files("consumer.page") / "locale" / f"{tag}.po"
    if not source.is_file():
        return Language(tag, gettext.NullTranslations())
    compiled = compile_catalogue(source.read_text("utf-8"))
    return Language(tag, gettext.GNUTranslations(io.BytesIO(compiled)))


def language_for(wanted: str | None, accepted: str) -> Language:
    """Return the language that a person chose, else the first of an Accept-Language header that is spoken here."""
    tags = [wanted or "", *_by_preference(accepted), "en"]
    return language(next(tag for tag in tags if tag in NAMES))


def _by_preference(accepted: str) -> list[str]:
    """Return the primary tags of an Accept-Language header (RFC 9110, 12.5.4), the most wanted first."""
    ranked = []
    for part in accepted.lower().split(",")[:20]:
        tag, _, rest = part.strip().partition(";")
        ranked.append((_quality(rest), tag.split("-")[0]))
    return [tag for quality, tag in sorted(ranked, key=lambda one: -one[0]) if quality > 0]


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def compile_catalogue(text: str) -> bytes:
    """Return a `.po` file as the `.mo` that gettext reads, so that nothing has to be built when Mayfly is packed."""
    entries: dict[str, str] = {}
    for block in text.split("\n\n"):
        parts: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line and not line.startswith("#"):
                word, _, rest = line.partition(" ")
                name, rest = (word, rest) if line.startswith("msg") else (name, line)
                parts[name] = parts.get(name, "") + literal_eval(rest)
        if "msgid_plural" in parts:
            forms = [parts[name] for name in sorted(parts) if name.startswith("msgstr")]
            entries["\0".join((parts["msgid"], parts["msgid_plural"]))] = "\0".join(forms)
        elif "msgid" in parts:
            entries[parts["msgid"]] = parts["msgstr"]
    pairs = [(key.encode(), entries[key].encode()) for key in sorted(entries)]
    return _catalogue(pairs)


def _catalogue(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return texts in the form of https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html."""
    header = 28
    tables, strings = b"", b""
    start = header + 16 * len(pairs)
    for side in (0, 1):
        for pair in pairs:
            tables += struct.pack("<II", len(pair[side]), start + len(strings))
            strings += pair[side] + b"\0"
    second = header + 8 * len(pairs)
    return (
        struct.pack("<IIIIIII", 0x950412DE, 0, len(pairs), header, second, 0, 0) + tables + strings
    )
