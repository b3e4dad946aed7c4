"""Env files: `NAME=value` a line, parsed strictly, because a misread value is a wrong password. Decisions only."""

import re

from agent.config.faults import Fault

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def parse_env(text: str, source: str) -> tuple[dict[str, str], list[Fault]]:
    r"""Return the variables of an env file, and all its faults by line; a fault never repeats the line.

    `#` begins a comment line. A value is taken literally, without spaces around it; in single quotes exactly; in double
    quotes with `\n \t \r \" \\ \$`. Nothing is expanded: `$` is a dollar sign.
    """
    values: dict[str, str] = {}
    faults: list[Fault] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, value = _variable(line.rstrip("\r"))
        except ValueError as error:
            faults.append(Fault(source, f"line {number}", str(error)))
            continue
        if name in values:
            faults.append(Fault(source, f"line {number}", f"{name} is set for the second time"))
        values[name] = value
    return values, faults


def _variable(line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("is not NAME=value")
    return match.group(1), _value(match.group(2).strip())


def _value(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a zero byte")
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        if match is None:
            raise ValueError("its double quotes do not end with the value")
        return _ESCAPE.sub(_unescaped, match.group(1))
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        if match is None:
            raise ValueError("its single quotes do not end with the value")
        return match.group(1)
    if re.search(r"\s#", text) or text.startswith("#"):
        # Other readers disagree on whether this is a comment; cutting a password short is no way to find out.
        raise ValueError('has a "#" after a space: quote the value, or move the comment')
    return text


def _unescaped(match: re.Match[str]) -> str:
    letter = match.group(1)
    if letter not in _ESCAPES:
        raise ValueError(
            f"has an unknown escape \\{letter}; in single quotes a backslash is a backslash"
        )
    return _ESCAPES[letter]
