"""The languages of the page: texts of `locale/*.po`, but for English, which is in the code; ages by humanize."""

import re
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from gettext import c2py
from importlib.resources import files

NAMES = {"en": "English", "ja": "日本語"}
_HUMANIZE = {"ja": "ja_JP"}


@dataclass(frozen=True, slots=True)
class Language:
    """A language.

    Attributes:
        tag: As HTML has it.
        forms: What each English text is called; of one that depends on a number each form.
        form: Returns which form a number takes.
    """

    tag: str
    forms: Mapping[str, Sequence[str]]
    form: Callable[[int], int]

    def __call__(self, text: str, /, **values: object) -> str:
        """Return a text, with its gaps filled."""
        return self.forms.get(text, (text,))[0].format(**values)

    def count(self, one: str, many: str, n: int, /, **values: object) -> str:
        """Return a text that depends on a number, `{n}`."""
        forms = self.forms.get(one)
        text = forms[self.form(n)] if forms else one if n == 1 else many
        return text.format(n=f"{n:,}", **values)

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
    return language_of(tag, source.read_text("utf-8") if source.is_file() else "")


def language_of(tag: str, catalogue: str) -> Language:
    """Return the language whose texts are in a `.po` file, as it is: nothing is built when Mayfly is packed."""
    found = {}
    for block in catalogue.split("\n\n"):
        parts: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line and not line.startswith("#"):
                word, _, rest = line.partition(" ")
                name, rest = (word, rest) if line.startswith("msg") else (name, line)
                parts[name] = parts.get(name, "") + literal_eval(rest)
        if "msgid" in parts:
            forms = [parts[name] for name in sorted(parts) if name.startswith("msgstr")]
            found[parts["msgid"]] = forms
    rule = re.search(r"\bplural=([^;\n]+)", found.pop("", [""])[0])
    return Language(tag, found, c2py(rule[1] if rule else "0"))


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
