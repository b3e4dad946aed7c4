"""`mayfly pull --complete-groups`: shards come home when all of them are committed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import ExitCode
from agent.core.ids import run_id
from agent.core.layout import IndexKey, parse_index_key
from agent.core.results import RunStatus
from agent.core.shards import Shard
from consumer.pull import plan
from consumer.pull.plan import GROUPS_WAIT, MOST_GROUPS, Wishes
from consumer.pull.state import Selection, read_state
from tests.bucket.bucket import Bucket
from tests.bucket.layout import entry_key
from tests.bucket.leaving import leave_run
from tests.consumer.pulling import placed, pull_into

ONLY = "--complete-groups"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home, which is not there yet."""
    return tmp_path / "home"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket in a folder: which kind it is makes no difference to groups."""
    return Bucket.in_folder(tmp_path / "bucket")


def leave(
    bucket: Bucket, number: int, part: Shard | None, *, days: int = 0, interrupted: bool = False
) -> str:
    """Leave a run that began so many minutes after the others, `days` ago."""
    run = run_id(
        NOW - timedelta(days=days, hours=3) + timedelta(minutes=number), bytes([number] * 3)
    )
    name = f"job{number}"
    leave_run(bucket, run, files={"quotes/a": name.encode()}, part=part, interrupted=interrupted)
    return run


def shard(number: int, shards: int = 2, group: str = "monday") -> Shard:
    """A shard of a group."""
    return Shard(group, number, shards)


def runs_in(dest: Path) -> list[str]:
    """The runs that a reader sees."""
    return [run for run, _ in placed(dest, ["quotes"])]


def test_a_shard_waits_for_its_group(bucket: Bucket, dest: Path) -> None:
    """A run without a group comes at once, a shard with the last of its group; what waits is told of once."""
    alone, first = leave(bucket, 0, None), leave(bucket, 1, shard(0))
    before = pull_into(dest, bucket, ONLY)
    assert before.code == ExitCode.DONE
    assert [row["text"] for row in before.document["notes"]] == [
        "group monday: 1 of 2 shards are committed; its runs wait for the others"
    ]
    assert runs_in(dest) == [alone]
    assert pull_into(dest, bucket, ONLY).document["notes"] == []
    second = leave(bucket, 2, shard(1))
    assert pull_into(dest, bucket, ONLY).code == ExitCode.DONE
    assert runs_in(dest) == [alone, first, second]


def test_an_interrupted_shard_does_not_complete_a_group(bucket: Bucket, dest: Path) -> None:
    """Its next attempt does; then what the interrupted one finished comes, too."""
    runs = [leave(bucket, 1, shard(0)), leave(bucket, 2, shard(1), interrupted=True)]
    pull_into(dest, bucket, ONLY)
    assert runs_in(dest) == []
    runs.append(leave(bucket, 3, shard(1)))
    pull_into(dest, bucket, ONLY)
    assert runs_in(dest) == runs


def test_a_run_after_its_group_was_complete_comes_at_once(bucket: Bucket, dest: Path) -> None:
    """A group that was complete stays so, also in the next pull."""
    runs = [leave(bucket, 1, shard(0)), leave(bucket, 2, shard(1))]
    pull_into(dest, bucket, ONLY)
    runs.append(leave(bucket, 3, shard(0)))
    pull_into(dest, bucket, ONLY)
    assert runs_in(dest) == runs


def test_a_group_of_which_a_part_came_goes_on(bucket: Bucket, dest: Path) -> None:
    """What could not be fetched with the others does not wait for them: they are not looked at again."""
    first, second = leave(bucket, 1, shard(0)), leave(bucket, 222, shard(1))
    some = pull_into(dest, bucket, ONLY, "--max-bytes", "4")
    assert (some.code, runs_in(dest)) == (ExitCode.PARTIAL, [first])
    assert pull_into(dest, bucket, ONLY).code == ExitCode.DONE
    assert runs_in(dest) == [first, second]


def test_without_the_flag_shards_come_one_by_one(bucket: Bucket, dest: Path) -> None:
    """The flag is another choice: a pull without it has its own place in the index."""
    first = leave(bucket, 1, shard(0))
    pull_into(dest, bucket, ONLY)
    pull_into(dest, bucket)
    assert runs_in(dest) == [first]


def test_more_shards_than_are_read_at_once_are_one_group(bucket: Bucket, dest: Path) -> None:
    """Seventy shards, whose entries are read in two parts, wait for the last of them and then come together."""
    runs = [leave(bucket, number, shard(number, 70)) for number in range(69)]
    pull_into(dest, bucket, ONLY)
    assert runs_in(dest) == []
    runs.append(leave(bucket, 69, shard(69, 70)))
    pull_into(dest, bucket, ONLY)
    assert runs_in(dest) == sorted(runs)


def test_a_group_that_is_never_complete_is_given_up(bucket: Bucket, dest: Path) -> None:
    """After two weeks its runs are refused, and not asked for any more; `--again` sees the whole group."""
    days = GROUPS_WAIT.days + 1
    first = leave(bucket, 1, shard(0), days=days)
    refused = pull_into(dest, bucket, ONLY)
    assert refused.code == ExitCode.PARTIAL
    assert refused.document["refused"][0]["problems"] == [plan.NEVER_COMPLETE]
    assert pull_into(dest, bucket, ONLY).document["refused"][0]["again"]
    second = leave(bucket, 2, shard(1), days=days)
    assert pull_into(dest, bucket, ONLY, "--again").code == ExitCode.DONE
    assert runs_in(dest) == [first, second]


def test_an_old_group_that_is_complete_comes(bucket: Bucket, dest: Path) -> None:
    """A first pull of an old bucket does not take complete groups for late ones."""
    days = GROUPS_WAIT.days * 3
    runs = [leave(bucket, number, shard(number), days=days) for number in range(2)]
    assert pull_into(dest, bucket, ONLY).code == ExitCode.DONE
    assert runs_in(dest) == runs


def test_since_cuts_what_comes_not_what_counts(bucket: Bucket, dest: Path) -> None:
    """A shard that began too early is not fetched, and its group is complete all the same."""
    leave(bucket, 1, shard(0))
    second = leave(bucket, 30, shard(1))
    since = f"{NOW - timedelta(hours=3) + timedelta(minutes=20):%Y-%m-%dT%H:%M:%SZ}"
    assert pull_into(dest, bucket, ONLY, "--since", since).code == ExitCode.DONE
    assert runs_in(dest) == [second]


def test_an_impossible_shard_is_refused(bucket: Bucket, dest: Path) -> None:
    """The third shard of two is nothing that an agent wrote."""
    leave(bucket, 1, Shard("monday", 2, 2))
    refused = pull_into(dest, bucket, ONLY)
    assert refused.document["refused"][0]["problems"] == ["its shard is impossible"]


STATUSES = [RunStatus.SUCCEEDED, RunStatus.INTERRUPTED]
PARTS = st.tuples(
    st.builds(shard, st.integers(0, 2), st.just(3), st.sampled_from(["a", "b"])),
    st.sampled_from(STATUSES),
)


def key_of(number: int) -> IndexKey:
    """The index key of some run."""
    run = run_id(NOW, bytes([0, 0, number]))
    key = parse_index_key(entry_key(run, NOW))
    assert key is not None
    return key


@given(st.lists(PARTS, max_size=12), st.integers(0, 12))
def test_what_is_complete_is_held_no_more(drawn: list[tuple[Shard, RunStatus]], cut: int) -> None:
    """However runs come in two pulls, those of complete groups are fetched and no others."""
    parts = {key_of(number): part for number, part in enumerate(drawn)}
    selection = Selection()
    for seen in (cut, len(drawn)):
        now = dict(list(parts.items())[:seen])
        selection = plan.with_complete(selection, now.values())
        held = plan.held(now, selection)
        for group in ("a", "b"):
            done = {
                one.shard
                for one, status in now.values()
                if one.group == group and status is not RunStatus.INTERRUPTED
            }
            waits = {key for key, (one, _) in now.items() if one.group == group}
            assert (waits & held.keys()) == (set() if len(done) == 3 else waits)


def test_few_complete_groups_are_remembered() -> None:
    """A thousand, the newest, which a state that is read again still names."""
    selection = Selection()
    for number in range(MOST_GROUPS + 5):
        part = (Shard(f"g{number}", 0, 1), RunStatus.SUCCEEDED)
        selection = plan.with_complete(selection, [part])
    assert len(selection.complete) == MOST_GROUPS
    assert selection.complete[-1] == f"g{MOST_GROUPS + 4}/1"
    assert Selection.model_validate_json(selection.model_dump_json()) == selection


@pytest.mark.parametrize("name", ["monday", "monday/0", "/2", "mon day/2", "monday/2\n"])
def test_a_state_with_an_impossible_group_is_none(name: str) -> None:
    """What is remembered comes from a file that others may write."""
    selection = Selection().model_copy(update={"complete": (name,)})
    text = f'{{"version": 1, "selections": {{"x": {selection.model_dump_json()}}}}}'
    assert read_state(text.encode()) is None


def test_the_flag_is_another_choice_and_older_ones_keep_their_name() -> None:
    """A folder that was pulled into before there were groups goes on where it was."""
    assert plan.selection_name(Wishes()) == '{"jobs": [], "partial": false}'
    assert plan.selection_name(Wishes(complete_groups=True)) != plan.selection_name(Wishes())
