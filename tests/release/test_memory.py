"""What is known of releases in the bucket: two writers, listings that lag, damage, a thousand nights, no secret."""

import json
from datetime import datetime, timedelta
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
from tests.parts.seaweed import S3Server
from tests.release.objects import Objects

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


class World:
    """Machines that share a bucket in memory, each with a clock of its own.

    Attributes:
        store: The bucket.
        events: What was logged.
    """

    def __init__(self) -> None:
        self.store = Objects()
        self.events: list[dict[str, Any]] = []
        self._runs = 0

    def memory(
        self, copy: Path | None = None, ahead: timedelta = timedelta(0), **more: Any
    ) -> Memory:
        """Return the memory of a run that begins now, on a machine whose clock is ahead."""
        self._runs += 1
        now = self.store.now + ahead
        return Memory(
            "v*",
            Writer(run_id(now, self._runs.to_bytes(3)), "machine", now + HOUR),
            copy=copy,
            now=lambda: self.store.now + ahead,
            log=RunLogger(self.events.append).log,
            pause=self._pause,
            **more,
        )

    async def _pause(self, seconds: float) -> None:
        self.store.now += timedelta(seconds=seconds)

    async def opened(self, **more: Any) -> Memory:
        """Return the memory of a run that has read the bucket."""
        memory = self.memory(**more)
        await memory.open(self.store.opened())
        return memory

    async def learn(self, **parts: Any) -> None:
        """Have a run learn something, some time later."""
        self.store.now += HOUR
        memory = await self.opened()
        memory.learn(**parts)
        await memory.send()
        self.store.now += HOUR


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
    world.store.now = datetime.now(world.store.now.tzinfo)

    async def opened() -> Bucket:
        return real

    first = world.memory()
    await first.connect(opened())
    for number in range(SNAPSHOT_AFTER):
        first.learn(good=good(f"v{number}", world.store.now))
        await first.send()
        world.store.now += timedelta(seconds=1)
    first.learn(pin=Pin(ref="v3", commit=commit("v3"), reason="why not"))
    await first.send()
    second = world.memory()
    await second.connect(opened())
    assert refs(second)[0] == f"v{SNAPSHOT_AFTER - 1}"
    assert second.known.pin is not None
    await second.compact()
    third = world.memory()
    await third.connect(opened())
    assert third.known == second.known
    keys = [item.key async for item in real.list("releases/")]
    assert [key for key in keys if key.endswith(".snapshot.json")]


async def test_two_machines_at_once(world: World) -> None:
    """Neither has seen the other: both are in the bucket afterwards, bad beats good, and a second look tells."""
    await world.learn(good=good("v1", world.store.now))
    one, other = await world.opened(), await world.opened()
    one.learn(bad=bad("v2"))
    other.learn(good=good("v2", world.store.now))
    await other.send()
    await one.send()
    assert refs(other) == ["v2", "v1"]
    await other.look_again()
    assert refs(other) == refs(one) == refs(await world.opened()) == ["v1"]


async def test_a_listing_that_lags_loses_nothing(world: World) -> None:
    """A snapshot that was made without an entry does not cover it; what a process wrote itself it knows."""
    for number in range(SNAPSHOT_AFTER):
        await world.learn(good=good(f"v{number}", world.store.now))
    world.store.lag = timedelta(seconds=9)
    early = await world.opened()
    early.learn(pin=Pin(ref="v1"))
    await early.send()
    late = await world.opened()
    assert late.known.pin is None
    await early.look_again()
    assert early.known.pin is not None
    await late.compact()
    world.store.now += HOUR
    assert (await world.opened()).known.pin == Pin(ref="v1")


async def test_a_put_whose_answer_was_lost_is_put_again(world: World) -> None:
    """Under another name; what is there twice counts once."""
    memory = await world.opened()
    memory.trial(commit("v2"), "v2", TrialStage.STARTED)
    world.store.lost = 2
    await memory.send()
    assert len(world.store.there) == 3
    world.store.now += 2 * HOUR
    known = (await world.opened()).known
    assert known.cut_off(commit("v2"), world.store.now, ()) == (0, 1)


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "garbage", "forged", "large", "elsewhere", "future"]
)
async def test_damage_and_forgery_are_reported_and_stop_nothing(world: World, damage: str) -> None:
    """Also of the newest snapshot: what it was made from is still there. The warning ends with an operator's word."""
    for number in range(SNAPSHOT_AFTER):
        await world.learn(good=good(f"v{number}", world.store.now))
    await (await world.opened()).compact()
    await world.learn(bad=bad(f"v{SNAPSHOT_AFTER - 1}"))
    before = (await world.opened()).known
    key = next(key for key in world.store.there if key.endswith(".snapshot.json"))
    document = json.loads(world.store.there[key].data)
    texts = {
        "cut": world.store.there[key].data[:-100],
        "empty": b"",
        "garbage": b"\0" * 500,
        "forged": json.dumps(document | {"run": "20261122T180000Z-aaaaaa"}).encode(),
        "large": b" " * (3 * 1024**2),
        "elsewhere": json.dumps(document | {"channel": "main"}).encode(),
        "future": json.dumps(
            document | {"snapshot": {**document["snapshot"], "facts": [NEVER]}}
        ).encode(),
    }
    await world.store.put_once(
        ReleaseKey("v*", document["run"], "ffffffff", 0, snapshot=True).text, b"{}"
    )
    del world.store.there[key]
    world.store.now += HOUR
    await world.store.put_once(key, texts[damage])
    world.store.now += HOUR
    memory = await world.opened()
    if (
        damage == "future"
    ):  # valid, but for the fact that nobody can have learnt: a forger may leave out what he likes
        assert memory.known.pin is None
        return
    assert memory.known == before
    (problem,) = memory.problems
    assert "2 entries of releases/v%2A/ cannot be read" in problem
    assert await unpin(memory, "looked at it") is None
    world.store.now += HOUR
    assert (await world.opened()).problems == []


async def test_without_the_bucket_the_disk_knows_and_what_was_learnt_is_sent_later(
    world: World, tmp_path: Path
) -> None:
    """A kept disk has a copy; what a dead run learnt stays that run's; a warning says what is missing."""
    copy = tmp_path / "releases" / "known.json"
    await world.learn(good=good("v1", world.store.now))
    await world.opened(copy=copy)
    world.store.away = True
    dying = await world.opened(copy=copy)
    assert refs(dying) == ["v1"]
    assert "could not be read from the bucket (it does not answer)" in dying.problems[0]
    dying.trial(commit("v2"), "v2", TrialStage.STARTED)
    await dying.send(last=True)
    assert any("could not be written" in problem for problem in dying.problems)
    fresh = await world.opened()
    assert (refs(fresh), len(fresh.problems)) == ([], 1)
    world.store.away = False
    later = await world.opened(copy=copy)
    assert later.known.cut_off(commit("v2"), world.store.now, later.dead) == (0, 1)
    await later.send()
    world.store.now += 2 * HOUR
    elsewhere = await world.opened()
    assert elsewhere.known.cut_off(commit("v2"), world.store.now, ()) == (0, 1)


async def test_a_damaged_copy_is_no_copy(world: World, tmp_path: Path) -> None:
    """The bucket has it all."""
    copy = tmp_path / "known.json"
    await world.learn(good=good("v1", world.store.now))
    for text in ("{", "", '{"version": 2}'):
        copy.write_text(text)
        assert refs(await world.opened(copy=copy)) == ["v1"]
    other = world.memory(copy=copy, place="another bucket")
    assert refs(other) == []


async def test_a_clock_that_is_ahead_hides_nothing(world: World) -> None:
    """What it covers with a snapshot is what it has seen, by the store's time."""
    for number in range(SNAPSHOT_AFTER):
        await world.learn(good=good(f"v{number}", world.store.now))
    await (await world.opened(ahead=timedelta(days=4000))).compact()
    await world.learn(good=good("v99", world.store.now))
    await world.learn(bad=bad("v99"))
    memory = await world.opened()
    assert refs(memory)[0] == f"v{SNAPSHOT_AFTER - 1}"
    assert memory.known.why_bad(commit("v99"), "v99", VERSION) is not None


async def test_of_many_shards_one_tells_what_is_no_fault(world: World) -> None:
    """The others act on what they learn, and tell only of what is bad."""
    memory = world.memory()
    shard = Memory(
        "v*",
        Writer("20261122T180000Z-5a5a5a", "shard", world.store.now + HOUR, quiet=True),
        copy=None,
        now=lambda: world.store.now,
        log=RunLogger(world.events.append).log,
    )
    for one in (memory, shard):
        await one.open(world.store.opened())
    shard.learn(good=good("v1", world.store.now))
    await shard.send()
    assert (refs(shard), len(world.store.there)) == (["v1"], 0)
    shard.learn(bad=bad("v2"))
    await shard.send()
    assert len(world.store.there) == 1


async def test_no_secret_is_in_an_entry(world: World) -> None:
    """A job may have printed one, and its message is why a release is bad."""
    canary = "hunter2-canary"
    memory = await world.opened(redact=Redactor({"TOKEN": canary}).record)
    memory.learn(bad=bad("v2", f"job one: 401 for {canary}"))
    memory.learn(pin=Pin(ref="v1", reason=f"{canary} was wrong"))
    await memory.send()
    texts = [stored.data for stored in world.store.there.values()]
    assert texts
    assert not any(canary.encode() in text for text in texts)


async def test_an_operator_decides_from_any_computer(world: World, tmp_path: Path) -> None:
    """Back to the one before, pinned, unpinned; what a run learnt meanwhile stays, and the last word counts."""
    release_store = ReleaseStore.at(tmp_path, tmp_path)
    for ref in ("v1", "v2", "v3"):
        await world.learn(good=good(ref, world.store.now))
    memory = await world.opened()
    rows = overview(memory.known, release_store, VERSION, world.store.now)
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
    world.store.now += HOUR
    memory = await world.opened()
    await pin(memory, rows, commit("v3")[:10], "try it again")
    world.store.now += HOUR
    known = (await world.opened()).known
    assert (known.pin and known.pin.ref, known.bad) == ("v3", ())


class ReadOnly(Objects):
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


async def _never() -> Objects:
    raise StoreError("no keys")


@pytest.mark.long
async def test_a_thousand_nights_are_read_with_a_handful_of_requests(world: World) -> None:
    """Every night on a fresh disk, every third one with a new release."""
    most = {"list": 0, "get": 0, "put": 0}
    for night in range(1000):
        world.store.now += NIGHT
        world.store.requests.clear()
        memory = await world.opened()
        memory.contact(reached=world.store.now)
        if night % 3 == 0:
            memory.trial(commit(f"v{night}"), f"v{night}", TrialStage.STARTED)
            await memory.send()
            memory.learn(good=good(f"v{night}", world.store.now))
            memory.end_trials()
        await memory.send()
        await memory.compact()
        if night > 100:
            most = {kind: max(count, world.store.requests[kind]) for kind, count in most.items()}
    print(
        f"\na thousand nights: {len(world.store.there)} entries; the most requests of a night: {most}"
    )
    assert most == {"list": 1, "get": most["get"], "put": 3}
    assert most["get"] <= SNAPSHOT_AFTER + 4
    memory = await world.opened()
    assert refs(memory)[0] == "v999"
    world.store.now += timedelta(days=400)
    world.store.requests.clear()
    assert refs(await world.opened())[0] == "v999"
    print(f"after a year's pause: {dict(world.store.requests)}")
