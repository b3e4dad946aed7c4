"""The layers of the configuration: documents, overridden key by key, overridden by single values. Decisions only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from agent.base.redact import Redactor
from agent.base.urlsecrets import settings_secrets
from agent.config.faults import Fault, faults_of, read_toml, suggest
from agent.config.settings import Settings

ENVIRONMENT = "environment"
SECTIONS: Mapping[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
"""The tables whose keys are known; in others people choose the names, and write them into the file."""


@dataclass(frozen=True, slots=True)
class Document:
    """A TOML document of the configuration, and the name of its source."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was read.

    Attributes:
        settings: The settings; the defaults when there are faults.
        source: The name of its first document.
        faults: All faults of the documents, of the environment and of the flags.
        origins: For each key that is set, `section.key`, which source it has its value from.
        without_launch: The settings without the launch's, where only that has faults: a run can report them.
    """

    settings: Settings
    source: str
    faults: tuple[Fault, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    without_launch: Settings | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """One value from outside the file: `key` as `section.name`, where it came from, and its text."""

    key: str
    source: str
    text: str


def environment_overrides(environ: Mapping[str, str]) -> tuple[list[Override], list[Fault]]:
    """Return what `MAYFLY_<SECTION>_<KEY>` variables set, and those that name a section but no key of it."""
    overrides, faults = [], []
    for name, text in sorted(environ.items()):
        section, _, key = name.removeprefix("MAYFLY_").lower().partition("_")
        if not name.startswith("MAYFLY_") or section not in SECTIONS or not key:
            continue
        known = list(SECTIONS[section].model_fields)
        if key in known:
            overrides.append(Override(f"{section}.{key}", f"{ENVIRONMENT} {name}", text))
        else:
            names = [f"MAYFLY_{section}_{field}".upper() for field in known]
            faults.append(Fault(ENVIRONMENT, name, "unknown variable", suggest(name, names)))
    return overrides, faults


def flag_overrides(pairs: Iterable[str]) -> tuple[list[Override], list[Fault]]:
    """Return what `--set section.key=value` flags set, and those that are not of that form."""
    overrides, faults = [], []
    keys = [f"{name}.{key}" for name, table in SECTIONS.items() for key in table.model_fields]
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            faults.append(Fault("--set", pair, "no value", "write --set section.key=value"))
        elif key in keys:
            overrides.append(Override(key, f"--set {key}", text))
        else:
            faults.append(Fault("--set", key, "unknown key", suggest(key, keys)))
    return overrides, faults


def parse_settings(documents: Sequence[Document], overrides: Iterable[Override] = ()) -> Loaded:
    """Return the settings, and all faults of the documents (at least one) and of the values that override them.

    Of documents, a table of a later one wins key by key; of overrides, a later one wins.
    """
    data, faults, origins = _merged(documents)
    source = documents[0].source
    for override in overrides:
        section, _, key = override.key.partition(".")
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(override)
            origins[override.key] = override.source
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        found = faults_of(error, Settings, data, source)
        redactor = Redactor(settings_secrets(data))
        faults += [
            Fault(
                _origin(fault.key, origins) or fault.source,
                fault.key,
                redactor.text(fault.problem),
                fault.remedy,
            )
            for fault in found
        ]
        return Loaded(Settings(), source, tuple(faults))
    return Loaded(Settings() if faults else settings, source, tuple(faults), origins)


def _merged(
    documents: Iterable[Document],
) -> tuple[dict[str, Any], list[Fault], dict[str, str]]:
    data: dict[str, Any] = {}
    faults: list[Fault] = []
    origins: dict[str, str] = {}
    for document in documents:
        read, unread = read_toml(document.text, document.source)
        faults += unread
        for section, values in read.items():
            below = data.get(section)
            if isinstance(values, dict) and isinstance(below, dict):
                data[section] = below | values
            else:
                data[section] = values
            keys = [f"{section}.{key}" for key in values] if isinstance(values, dict) else []
            origins |= dict.fromkeys([section, *keys], document.source)
    return data, faults, origins


def _origin(key: str, origins: Mapping[str, str]) -> str | None:
    """Return the source of a key such as `limits.run`, `notify.apprise[2]` or `limits`."""
    path = key.split("[", maxsplit=1)[0].split(".")
    return origins.get(".".join(path[:2])) or origins.get(path[0])


def _value(override: Override) -> Any:
    """Return an override's value: text stays text; numbers and lists are read as in TOML."""
    section, _, key = override.key.partition(".")
    wanted = SECTIONS[section].model_fields[key].annotation
    if wanted in (int, float, tuple[str, ...]):
        read, unread = read_toml(f"value = {override.text}", override.source)
        if not unread:
            return read["value"]
        if wanted == tuple[str, ...]:
            return [part.strip() for part in override.text.split(",") if part.strip()]
    return override.text
