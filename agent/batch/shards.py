"""Shards: which part of a batch a run is, as flags, engines and the machine say. Decisions only.

Why the flag counts from 1, and who says which shard a run is: docs/decisions/0101.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.base.errors import ShardError
from agent.batch.slots import parse_slot
from agent.contract.ids import COUNT_TAG, GROUP, MOST_SHARDS, Batch, Shard

GROUP_VARIABLE = "MAYFLY_GROUP"
COUNT_VARIABLE = "MAYFLY_SHARDS"
"""How many shards there are, where the engine tells only which one this is, as Kubernetes does."""
KUBERNETES_INDEX = "JOB_COMPLETION_INDEX"
BATCH_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
BATCH_SIZE = "AWS_BATCH_JOB_ARRAY_SIZE"
BATCH_JOB = "AWS_BATCH_JOB_ID"

_FLAG = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ShardHint:
    """What one source says of the shard.

    Attributes:
        source: Its name, for a person.
        shard: Which one, from 0; None when it does not say.
        shards: How many; None when it does not say.
    """

    source: str
    shard: int | None = None
    shards: int | None = None


@dataclass(frozen=True, slots=True)
class ShardHints:
    """What is known of the shard when the process starts, before the machine was asked.

    Attributes:
        hints: What the flag and the engines say, in the order of precedence.
        group: The group that a person or the engine named; empty for none.
    """

    hints: tuple[ShardHint, ...] = ()
    group: str = ""


NO_HINTS = ShardHints()
"""A run that nobody told of shards."""


def shard_hints(flag: str | None, group: str | None, environ: Mapping[str, str]) -> ShardHints:
    """Return what the command line and the environment say.

    `flag` is such as `2/8` for the second of eight; a group that is a time is written as slots are.

    Raises:
        ShardError: One of them cannot be understood.
    """

    def said(variable: str) -> int | None:
        return _number(variable, environ[variable]) if environ.get(variable) else None

    hints = [_flag(flag)] if flag else []
    if (index := said(KUBERNETES_INDEX)) is not None:
        hints.append(ShardHint(KUBERNETES_INDEX, index))
    if (index := said(BATCH_INDEX)) is not None:
        hints.append(ShardHint(BATCH_INDEX, index, said(BATCH_SIZE)))
    if (shards := said(COUNT_VARIABLE)) is not None:
        hints.append(ShardHint(COUNT_VARIABLE, shards=shards))
    # A child of an array is called `<parent>:<index>`, and keeps that id when it is retried.
    parent = environ.get(BATCH_JOB, "").partition(":")[0]
    name = group or environ.get(GROUP_VARIABLE) or parent
    slot = parse_slot(name)
    name = _slot_name(slot) if slot else name
    if name and not re.fullmatch(GROUP, name):
        raise ShardError(
            f'"{name}" cannot be a group',
            remedy="use letters, digits, dots, hyphens and underscores, at most 100",
        )
    return ShardHints(tuple(hints), name)


def identify(
    known: ShardHints,
    slot: datetime | None,
    *,
    count: str | None = None,
    launch_index: int | None = None,
) -> Shard | None:
    """Return which shard this run is; None for a run that is a whole batch.

    The slot names the group where nobody else does. A machine of EC2 has a launch index, its number among those
    that one request launched; of a fleet it has the tag `COUNT_TAG`, with the `count` of shards.

    Raises:
        ShardError: Two sources contradict each other, or one of the two numbers is missing, or the group.
    """
    hints = [*known.hints, *_fleet(known, count, launch_index)]
    if not hints and not known.group:
        return None
    shards = _agreed([(hint.source, hint.shards) for hint in hints], "shards")
    shard = _agreed([(hint.source, hint.shard) for hint in hints], "shard")
    if hints and shards is None:
        raise ShardError(
            f"{hints[0].source} gives the number of this shard, and nothing gives how many there are",
            remedy=f"set {COUNT_VARIABLE}, in Kubernetes to the job's completions",
        )
    if shards is not None and not 1 <= shards <= MOST_SHARDS:
        raise ShardError(f"{shards} shards are not possible", remedy=f"1 to {MOST_SHARDS}")
    if hints and shard is None and shards != 1:
        raise ShardError(
            f"there are {shards} shards, and nothing says which one this is",
            remedy=f'start it with --shard, for example "--shard 1/{shards}"',
        )
    shard, shards = shard or 0, shards or 1
    if shard >= shards:
        raise ShardError(f"there is no shard {shard} (counted from 0) of {shards}")
    group = known.group or (_slot_name(slot) if slot else "")
    if not group:
        raise ShardError(
            "a shard needs a group, which it shares with the other shards of its batch",
            remedy=f"add --group NAME or {GROUP_VARIABLE}, the same for all of them and new for each batch",
        )
    return Shard(group, shard, shards)


def _flag(text: str) -> ShardHint:
    match = _FLAG.fullmatch(text)
    if match is None or int(match.group(1)) > int(match.group(2)):
        raise ShardError(
            f'invalid --shard "{text}": expected NUMBER/COUNT',
            remedy='write "2/8" for the second of eight; the first is "1/8"',
        )
    return ShardHint("--shard", int(match.group(1)) - 1, int(match.group(2)))


def _number(source: str, text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise ShardError(f'{source} is "{text}", which is not a number')
    return int(text)


def _fleet(known: ShardHints, count: str | None, index: int | None) -> Iterable[ShardHint]:
    """Yield what EC2 says; it means this run only where the tag says so or nobody else knows which shard it is."""
    numbered = any(hint.shard is not None for hint in known.hints)
    if count is not None:
        source = f"the tag {COUNT_TAG}"
        yield ShardHint(source, index, _number(source, count))
    elif index is not None and known.hints and not numbered:
        yield ShardHint("the launch index", index)


def _slot_name(slot: datetime) -> str:
    return Batch.of_slot("", slot).name


def _agreed(said: Iterable[tuple[str, int | None]], what: str) -> int | None:
    """Return what the sources say that say anything.

    Raises:
        ShardError: They do not say the same.
    """
    first: tuple[str, int] | None = None
    for source, value in said:
        if value is None:
            continue
        if first is not None and first[1] != value:
            counted = "shards" if what == "shards" else "as this shard's number, from 0"
            raise ShardError(
                f"{first[0]} says {first[1]} and {source} says {value} {counted}",
                remedy="remove one of the two",
            )
        first = first or (source, value)
    return first[1] if first else None
