"""Every key of the configuration with its value, and where that comes from. Decisions only."""

from dataclasses import dataclass
from typing import Any

from agent.base.redact import Redactor
from agent.config.overrides import Loaded


@dataclass(frozen=True, slots=True)
class Explained:
    """A key of the configuration.

    Attributes:
        key: `section.key`.
        value: As JSON has it, without secrets: durations in seconds, sizes in bytes; None where it is not set.
        source: The file, `user data`, the variable or the flag; `default`.
    """

    key: str
    value: Any
    source: str


def explained(loaded: Loaded) -> list[Explained]:
    """Return every key of a configuration, in the order of its reference."""
    redactor = Redactor(loaded.settings.sensitive())
    return [
        Explained(
            f"{section}.{key}",
            _clean(value, redactor),
            loaded.origins.get(f"{section}.{key}", "default"),
        )
        for section, table in loaded.settings.model_dump(mode="json").items()
        for key, value in table.items()
    ]


def _clean(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        return redactor.text(value)
    return [_clean(item, redactor) for item in value] if isinstance(value, list) else value
