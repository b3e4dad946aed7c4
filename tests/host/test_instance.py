"""What an instance says of itself is a stranger's text: checked, bounded or left out, and never an exception."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.contract.facts import Host
from agent.machine.instance import (
    MOST_TAGS,
    PATHS,
    TAG_VALUE_LENGTH,
    HostFacts,
    host_facts,
    on_ec2,
    rebalance_notice,
    spot_notice,
    tag_names,
    valid_tags,
    with_facts,
)

ANSWERS: dict[str, str | None] = {
    "instance_id": "i-0123456789abcdef0",
    "instance_type": "t3.medium",
    "zone": "ap-northeast-3a",
    "region": "ap-northeast-3",
    "image": "ami-0123456789abcdef0",
    "life_cycle": "spot",
    "launch_index": "3",
    "public_address": "203.0.113.7",
    "identity": json.dumps({"pendingTime": "2026-11-22T18:00:03Z", "more": {"deep": []}}),
}
SLOT = "2026-11-22T18:00:00Z"

texts = st.one_of(st.none(), st.text(), st.sampled_from([*ANSWERS.values()]))


def test_an_honest_machine_is_known() -> None:
    """Each fact stands where it belongs, and the slot is the tag's time."""
    facts = host_facts(ANSWERS, {"Name": "mayfly", "mayfly-slot": SLOT})
    assert facts == HostFacts(
        instance_id="i-0123456789abcdef0",
        instance_type="t3.medium",
        zone="ap-northeast-3a",
        region="ap-northeast-3",
        image="ami-0123456789abcdef0",
        life_cycle="spot",
        launch_index=3,
        launched=datetime(2026, 11, 22, 18, 0, 3, tzinfo=UTC),
        public_address=True,
        tags={"Name": "mayfly", "mayfly-slot": SLOT},
        slot=datetime(2026, 11, 22, 18, tzinfo=UTC),
    )


@pytest.mark.parametrize("name", sorted(PATHS))
@pytest.mark.parametrize("text", ["", "i-0\nrm -rf", "x" * 70000, "<html>", "\u0661", "\x1b[2J"])
def test_a_wrong_answer_leaves_that_fact_out_and_no_other(name: str, text: str) -> None:
    """An error page, a control sequence or an endless line in one answer costs that answer alone."""
    facts = host_facts({**ANSWERS, name: text}, {})
    good = host_facts(ANSWERS, {})
    field = "launched" if name == "identity" else name
    assert not getattr(facts, field)
    for other in ("instance_id", "zone", "image", "launched"):
        if other != field:
            assert getattr(facts, other) == getattr(good, other)


@given(
    st.dictionaries(st.sampled_from(sorted(PATHS)), texts),
    st.dictionaries(st.text(max_size=200), st.text(max_size=400), max_size=70),
)
@example({"identity": "[" * 16000}, {"mayfly-slot": "9999-99-99T99:99:99Z"})
@example({"identity": '{"pendingTime": 1e999}'}, {})
def test_whatever_it_says_the_facts_are_small_and_printable(
    answers: dict[str, str | None], tags: dict[str, str]
) -> None:
    """No answer raises, and nothing that could move a cursor or fill a manifest comes through."""
    facts = host_facts(answers, tags)
    words = [facts.instance_id, facts.instance_type, facts.zone, facts.region, facts.image]
    for word in [*words, *facts.tags, *facts.tags.values()]:
        assert word is None or (word.isprintable() and len(word) <= TAG_VALUE_LENGTH)
    assert len(facts.tags) <= MOST_TAGS
    Host.model_validate(with_facts(Host(name="host", system="Linux"), facts).model_dump())


@given(st.one_of(st.none(), st.text(), st.recursive(st.none(), st.lists).map(json.dumps)))
@example('{"action": "stop", "time": "2026-11-22T18:00:00+09:00"}')
@example('{"action": ["stop"], "time": "2026-11-22T18:00:00Z"}')
@example('{"action": "stop", "time": "2026-02-30T18:00:00Z"}')
@example('"stop"')
def test_what_is_no_notice_is_none(answer: str | None) -> None:
    """Only EC2's own form is a notice; anything else does not end a run."""
    assert spot_notice(answer) is None
    assert rebalance_notice(answer) is None


def test_a_notice_names_what_happens_and_when() -> None:
    """EC2's form, as its documentation has it."""
    notice = spot_notice('{"action": "terminate", "time": "2026-11-22T18:02:00Z"}')
    assert notice is not None
    assert notice.action == "terminate"
    assert notice.time == datetime(2026, 11, 22, 18, 2, tzinfo=UTC)
    assert rebalance_notice('{"noticeTime": "2026-11-22T18:02:00Z"}') == notice.time


@given(st.text())
@example("..\n_index\na/b\nName")
def test_names_of_tags_lead_nowhere_else(listing: str) -> None:
    """A listing cannot send a request to another path."""
    for name in tag_names(listing):
        assert name not in {".", "..", "_index"}
        assert "/" not in name
        assert name.isprintable()


def test_tags_beyond_ec2s_limits_are_left_out() -> None:
    """More tags, longer ones and unprintable ones than EC2 allows are not tags."""
    tags = {f"t{number:02d}": "v" for number in range(70)} | {"a": "\n", "b": "v" * 300, "": "v"}
    assert list(valid_tags(tags)) == [f"t{number:02d}" for number in range(MOST_TAGS)]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (("Amazon EC2", "", ""), True),
        (("", "i-0123456789abcdef0", ""), True),
        (("Xen", "", "EC2E1916-9099-7CAF-FD21-012345ABCDEF"), True),
        (("LENOVO", "Not Available", "4c4c4544-0000"), False),
        (("QEMU", "", ""), False),
        (("", "", ""), False),
    ],
)
def test_the_firmware_tells_ec2_from_a_laptop(marks: tuple[str, str, str], expected: bool) -> None:
    """Nitro and Xen machines are known; a laptop and a plain virtual machine are not taken for one."""
    assert on_ec2(*marks) is expected
