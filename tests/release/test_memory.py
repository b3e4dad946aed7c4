"""What is known of releases in the bucket: two writers, listings that lag, damage, a thousand nights, no secret."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import StoreError, StoreRefused
from agent.base.logs import RunLogger
from agent.base.redact import Redactor
from agent.bucket.address import LocalBucket, S3Bucket, bucket_at
from agent.bucket.store import Bucket
from agent.config.credentials import static_credentials
from agent.config.settings import Store
from agent.contract.ids import run_id
from agent.contract.layout import ReleaseKey
from agent.contract.releases import Bad, Good, Pin, TrialStage
from agent.release.memory import SNAPSHOT_AFTER, Memory, Writer
from agent.release.operate import overview, pin, rollback, unpin
from agent.release.store import ReleaseStore
from tests.batch.memory import MemoryBucket
from tests.parts.seaweed import S3Server

VERSION = "0.2.0"
HOUR, NIGHT = timedelta(hours=1), timedelta(days=1)


def commit(ref: str) -> str:
    """Return the commit of a tag of these tests."""
    return ref.encode().hex().ljust(40, "0")


def good(ref: str, now: datetime) -> Good:
    """Return a release that proved itself."""
    return Good(line="r tags v*", tag=True, ref=ref, commit=commit(ref), fetched=now)


def bad(ref: str, reason: str = "job one") -> Bad:
    """Return why a release is bad."""
    return Bad(commit=commit(ref), ref=ref, reason=reason, agent=VERSION)


NEVER = {
    "at": "2999-01-01T00:00:00Z",
    "written": "2999-01-01T00:00:00Z",
    "run": "20261122T180000Z-aaaaaa",
    "pin": {"ref": "v0"},
}
"""A fact from the future: it would be the last word for ever."""


@dataclass
class LosingBucket(MemoryBucket):
    """Some puts still apply, and answer with an error all the same."""

    lost: int = 0

    async def put_once(self, key: str, data: bytes) -> None:
        """Write an object, and perhaps deny it."""
        await super().put_once(key, data)
        if self.lost:
            self.lost -= 1
            raise StoreError("the answer was lost")


class World:
    """Machines that share a bucket in memory, `store`, each with a clock of its own."""

    def __init__(self) -> None:
        self.store = LosingBucket()
        self._runs = 0

    @property
    def now(self) -> datetime:
        """The store's time."""
        return self.store.clock.now()

    def wait(self, some: timedelta = HOUR) -> None:
        """Let the time pass."""
        self.store.clock.seconds += some.total_seconds()

    def memory(
        self,
        copy: Path | None = None,
        ahead: timedelta = timedelta(0),
        *,
        quiet: bool = False,
        **more: Any,
    ) -> Memory:
        """Return the memory of a run that begins now, on a machine whose clock is ahead."""
        self._runs += 1
        now = self.now + ahead
        return Memory(
            "v*",
            Writer(run_id(now, self._runs.to_bytes(3)), "machine", now + HOUR, quiet=quiet),
            copy=copy,
            now=lambda: self.now + ahead,
            log=RunLogger().log,
            pause=self.store.clock.pause,
            **more,
        )

    async def opened(self, **more: Any) -> Memory:
        """Return the memory of a run that has read the bucket."""

        async def store() -> MemoryBucket:
            return self.store

        memory = self.memory(**more)
        await memory.open(store())
        return memory

    async def learn(self, **parts: Any) -> None:
        """Have a run learn something, some time later."""
        self.wait()
        memory = await self.opened()
        memory.learn(**parts)
        await memory.send()
        self.wait()

    async def learn_enough(self) -> None:
        """Have runs find releases good, until their entries are worth a snapshot."""
        for number in range(SNAPSHOT_AFTER):
            await self.learn(good=good(f"v{number}", self.now))


@pytest.fixture
def world() -> World:
    """A world without any entry."""
    return World()


def refs(memory: Memory) -> list[str]:
    """Return the good releases, the last one first."""
    return [one.ref for one in memory.known.good(VERSION)]


@pytest.fixture(params=["folder", "s3"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """A real bucket."""
    if request.param == "folder":
        return Bucket.open(LocalBucket(tmp_path / "bucket"), None)
    server: S3Server = request.getfixturevalue("s3_server")
    name: str = request.getfixturevalue("s3_bucket")
    address = bucket_at(Store(url=f"s3://{name}/prod", endpoint=server.url), tmp_path)
    assert isinstance(address, S3Bucket)
    return Bucket.open(address, static_credentials(server.environ))


async def test_a_real_bucket_has_it_all(world: World, real: Bucket) -> None:
    """Learnt by one, known to the next; a snapshot says the same as what it was made from."""
    world.wait(datetime.now(UTC) - world.now)

    async def memory() -> Memory:
        async def opened() -> Bucket:
            return real

        memory = world.memory()
        await memory.connect(opened())
        return memory

    first = await memory()
    for number in range(SNAPSHOT_AFTER):
        first.learn(good=good(f"v{number}", world.now))
        await first.send()
        world.wait(timedelta(seconds=1))
    first.learn(pin=Pin(ref="v3", commit=commit("v3"), reason="why not"))
    await first.send()
    second = await memory()
    assert refs(second)[0] == f"v{SNAPSHOT_AFTER - 1}"
    assert second.known.pin is not None
    await second.compact()
    assert (await memory()).known == second.known
    keys = [item.key async for item in real.list("releases/")]
    assert any(key.endswith(".snapshot.json") for key in keys)


async def test_two_machines_at_once(world: World) -> None:
    """Neither has seen the other: both are in the bucket afterwards, bad beats good, and a second look tells."""
    await world.learn(good=good("v1", world.now))
    one, other = await world.opened(), await world.opened()
    one.learn(bad=bad("v2"))
    other.learn(good=good("v2", world.now))
    await other.send()
    await one.send()
    assert refs(other) == ["v2", "v1"]
    await other.look_again()
    assert refs(other) == refs(one) == refs(await world.opened()) == ["v1"]


async def test_a_listing_that_lags_loses_nothing(world: World) -> None:
    """A snapshot that was made without an entry does not cover it; what a process wrote itself it knows."""
    await world.learn_enough()
    world.store.lag = 9.0
    early = await world.opened()
    early.learn(pin=Pin(ref="v1"))
    await early.send()
    late = await world.opened()
    assert late.known.pin is None
    await early.look_again()
    assert early.known.pin is not None
    await late.compact()
    world.wait()
    assert (await world.opened()).known.pin == Pin(ref="v1")


async def test_a_put_whose_answer_was_lost_is_put_again(world: World) -> None:
    """Under another name; what is there twice counts once."""
    memory = await world.opened()
    memory.trial(commit("v2"), "v2", TrialStage.STARTED)
    world.store.lost = 2
    await memory.send()
    assert len(world.store.objects) == 3
    world.wait(2 * HOUR)
    known = (await world.opened()).known
    assert known.cut_off(commit("v2"), world.now, ()) == (0, 1)


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "garbage", "forged", "large", "elsewhere", "future"]
)
async def test_damage_and_forgery_are_reported_and_stop_nothing(world: World, damage: str) -> None:
    """Also of the newest snapshot: what it was made from is still there. The warning ends with an operator's word."""
    await world.learn_enough()
    await (await world.opened()).compact()
    await world.learn(bad=bad(f"v{SNAPSHOT_AFTER - 1}"))
    before = (await world.opened()).known
    key = next(key for key in world.store.objects if key.endswith(".snapshot.json"))
    document = json.loads(world.store.objects[key].data)
    texts = {
        "cut": world.store.objects[key].data[:-100],
        "empty": b"",
        "garbage": b"\0" * 500,
        "forged": json.dumps(document | {"run": "20261122T180000Z-aaaaaa"}).encode(),
        "large": b" " * (3 * 1024**2),
        "elsewhere": json.dumps(document | {"channel": "main"}).encode(),
        "future": json.dumps(
            document | {"snapshot": {**document["snapshot"], "facts": [NEVER]}}
        ).encode(),
    }
    invalid = ReleaseKey("v*", document["run"], "ffffffff", 0, snapshot=True)
    await world.store.put_once(invalid.text, b"{}")
    del world.store.objects[key]
    world.wait()
    await world.store.put_once(key, texts[damage])
    world.wait()
    memory = await world.opened()
    if damage == "future":
        # Valid, but for the fact that nobody can have learnt: a forger may leave out what he likes.
        assert memory.known.pin is None
        return
    assert memory.known == before
    (problem,) = memory.problems
    assert "2 entries of releases/v%2A/ cannot be read" in problem
    assert await unpin(memory, "looked at it") is None
    world.wait()
    assert (await world.opened()).problems == []


async def test_without_the_bucket_the_disk_knows_and_what_was_learnt_is_sent_later(
    world: World, tmp_path: Path
) -> None:
    """A kept disk has a copy; what a dead run learnt stays that run's; a warning says what is missing."""
    copy = tmp_path / "releases" / "known.json"
    await world.learn(good=good("v1", world.now))
    await world.opened(copy=copy)
    world.store.fails |= {"list", "put"}
    dying = await world.opened(copy=copy)
    assert refs(dying) == ["v1"]
    assert "could not be read from the bucket (could not list releases/" in dying.problems[0]
    dying.trial(commit("v2"), "v2", TrialStage.STARTED)
    await dying.send(last=True)
    assert any("could not be written" in problem for problem in dying.problems)
    fresh = await world.opened()
    assert (refs(fresh), len(fresh.problems)) == ([], 1)
    world.store.fails.clear()
    later = await world.opened(copy=copy)
    assert later.known.cut_off(commit("v2"), world.now, later.dead) == (0, 1)
    await later.send()
    world.wait(2 * HOUR)
    elsewhere = await world.opened()
    assert elsewhere.known.cut_off(commit("v2"), world.now, ()) == (0, 1)


async def test_what_was_replaced_before_it_could_be_sent_is_not_sent_after_all(
    world: World, tmp_path: Path
) -> None:
    """It would arrive after what replaced it, and so have the last word."""
    copy = tmp_path / "known.json"
    world.store.fails.add("put")
    night = await world.opened(copy=copy)
    night.contact(unreachable_since=world.now)
    await night.send(last=True)
    world.store.fails.clear()
    world.wait(NIGHT)
    later = await world.opened(copy=copy)
    later.contact(reached=world.now, unreachable_since=None)
    await later.send()
    world.wait()
    later.learn(good=good("v1", world.now))
    await later.send(last=True)
    world.wait()
    elsewhere = (await world.opened()).known
    assert (elsewhere.contact.unreachable_since, len(elsewhere.facts)) == (None, 2)


async def test_a_damaged_copy_is_no_copy(world: World, tmp_path: Path) -> None:
    """The bucket has it all."""
    copy = tmp_path / "known.json"
    await world.learn(good=good("v1", world.now))
    for text in ("{", "", '{"version": 2}'):
        copy.write_text(text)
        assert refs(await world.opened(copy=copy)) == ["v1"]
    other = world.memory(copy=copy, place="another bucket")
    assert refs(other) == []


async def test_a_clock_that_is_ahead_hides_nothing(world: World) -> None:
    """What it covers with a snapshot is what it has seen, by the store's time."""
    await world.learn_enough()
    await (await world.opened(ahead=timedelta(days=4000))).compact()
    await world.learn(good=good("v99", world.now))
    await world.learn(bad=bad("v99"))
    memory = await world.opened()
    assert refs(memory)[0] == f"v{SNAPSHOT_AFTER - 1}"
    assert memory.known.why_bad(commit("v99"), "v99", VERSION) is not None


async def test_of_many_shards_one_tells_what_is_no_fault(world: World) -> None:
    """The others act on what they learn, and tell only of what is bad."""
    shard = await world.opened(quiet=True)
    shard.learn(good=good("v1", world.now))
    await shard.send()
    assert (refs(shard), len(world.store.objects)) == (["v1"], 0)
    shard.learn(bad=bad("v2"))
    await shard.send()
    assert len(world.store.objects) == 1


async def test_no_secret_is_in_an_entry(world: World) -> None:
    """A job may have printed one, and its message is why a release is bad."""
    canary = "hunter2-canary"
    memory = await world.opened(redact=Redactor({"TOKEN": canary}).record)
    memory.learn(bad=bad("v2", f"job one: 401 for {canary}"))
    memory.learn(pin=Pin(ref="v1", reason=f"{canary} was wrong"))
    await memory.send()
    (stored,) = world.store.objects.values()
    assert canary.encode() not in stored.data


async def test_an_operator_decides_from_any_computer(world: World, tmp_path: Path) -> None:
    """Back to the one before, pinned, unpinned; what a run learnt meanwhile stays, and the last word counts."""
    release_store = ReleaseStore.at(tmp_path, tmp_path)
    for ref in ("v1", "v2", "v3"):
        await world.learn(good=good(ref, world.now))
    memory = await world.opened()
    rows = overview(memory.known, release_store, VERSION, world.now)
    meanwhile = await world.opened()
    meanwhile.learn(pin=Pin(ref="v2", reason="another operator, in the same second"))
    left, target = await rollback(memory, rows, None, version=VERSION, reason="slow")
    await meanwhile.send()
    assert (left.ref, target.ref) == ("v3", "v2")
    known = (await world.opened()).known
    assert [one.ref for one in known.good(VERSION)] == ["v2", "v1"]
    lowest = known.lowest("r tags v*", tag=True)
    assert lowest is not None
    assert lowest.ref == "v2"
    world.wait()
    memory = await world.opened()
    await pin(memory, rows, commit("v3")[:10], "try it again")
    world.wait()
    known = (await world.opened()).known
    assert (known.pin and known.pin.ref, known.bad) == ("v3", ())


class ReadOnly(LosingBucket):
    """A store whose keys only read."""

    async def put_once(self, key: str, data: bytes) -> None:
        """Refuse."""
        raise StoreRefused(f"put {key}: access denied")


async def test_keys_that_only_read_say_so(world: World) -> None:
    """As home's do: everything is seen, and nothing decided."""
    world.store = ReadOnly()
    memory = await world.opened()
    with pytest.raises(StoreRefused, match="only read the bucket, so nothing was changed"):
        await pin(memory, [], "v1", "")
    with pytest.raises(StoreError):
        await world.memory().connect(_never())


async def _never() -> MemoryBucket:
    raise StoreError("no keys")


@pytest.mark.long
async def test_a_thousand_nights_are_read_with_a_handful_of_requests(world: World) -> None:
    """Every night on a fresh disk, every third one with a new release."""
    most = {"list": 0, "get": 0, "put": 0}
    for night in range(1000):
        world.wait(NIGHT)
        world.store.forget()
        memory = await world.opened()
        memory.contact(reached=world.now)
        if night % 3 == 0:
            memory.trial(commit(f"v{night}"), f"v{night}", TrialStage.STARTED)
            await memory.send()
            memory.learn(good=good(f"v{night}", world.now))
            memory.end_trials()
        await memory.send()
        await memory.compact()
        if night > 100:
            most = {kind: max(count, world.store.asked[kind]) for kind, count in most.items()}
    print(f"\na thousand nights: {len(world.store.objects)} entries; at most, in a night: {most}")
    assert most == {"list": 1, "get": most["get"], "put": 3}
    assert most["get"] <= SNAPSHOT_AFTER + 4
    memory = await world.opened()
    assert refs(memory)[0] == "v999"
    world.wait(timedelta(days=400))
    world.store.forget()
    assert refs(await world.opened())[0] == "v999"
    print(f"after a year's pause: {dict(world.store.asked)}")
