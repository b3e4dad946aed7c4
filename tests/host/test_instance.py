"""What an instance says of itself is a stranger's text: checked, bounded or left out, and never an exception."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.contract.facts import Host
from agent.machine.instance import (
    LONGEST_TAG,
    PATHS,
    HostFacts,
    host_facts,
    on_ec2,
    rebalance_notice,
    spot_notice,
    with_facts,
)

DOCUMENT: dict[str, object] = {
    "instanceId": "i-0123456789abcdef0",
    "instanceType": "t3.medium",
    "availabilityZone": "ap-northeast-3a",
    "region": "ap-northeast-3",
    "imageId": "ami-0123456789abcdef0",
    "pendingTime": "2026-11-22T18:00:03Z",
    "more": {"deep": []},
}
ANSWERS: dict[str, str | None] = {
    "identity": json.dumps(DOCUMENT),
    "life_cycle": "spot",
    "launch_index": "3",
    "public_address": "203.0.113.7",
    "slot": "2026-11-22T18:00:00Z",
    "shards": "8",
}
GOOD = HostFacts(
    instance_id="i-0123456789abcdef0",
    instance_type="t3.medium",
    zone="ap-northeast-3a",
    region="ap-northeast-3",
    image="ami-0123456789abcdef0",
    life_cycle="spot",
    launch_index=3,
    launched=datetime(2026, 11, 22, 18, 0, 3, tzinfo=UTC),
    public_address=True,
    slot=datetime(2026, 11, 22, 18, tzinfo=UTC),
    shards="8",
)
FIELDS = {
    "instance_id": "instanceId",
    "instance_type": "instanceType",
    "zone": "availabilityZone",
    "region": "region",
    "image": "imageId",
    "launched": "pendingTime",
}
"""What comes from the identity document, and its name there."""
NOTHING = HostFacts()

texts = st.one_of(st.none(), st.text(), st.sampled_from([*ANSWERS.values()]))
values = st.recursive(st.one_of(st.none(), st.floats(), st.text()), st.lists)
documents = st.dictionaries(st.sampled_from(sorted(DOCUMENT)), values).map(json.dumps)


def test_an_honest_machine_is_known() -> None:
    """Each fact stands where it belongs, and the slot is the tag's time."""
    assert host_facts(ANSWERS) == GOOD


@pytest.mark.parametrize("name", sorted({*PATHS, *FIELDS} - {"identity", "shards"}))
@pytest.mark.parametrize("text", ["", "i-0\nrm -rf", "x" * 16000, "<html>", "\u0661", "\x1b[2J"])
def test_a_wrong_answer_leaves_that_fact_out_and_no_other(name: str, text: str) -> None:
    """An error page, a control sequence or an endless line in one place costs that fact alone."""
    document = json.dumps({**DOCUMENT, FIELDS.get(name, "more"): text})
    answers = {**ANSWERS, "identity": document, **({} if name in FIELDS else {name: text})}
    assert host_facts(answers) == replace(GOOD, **{name: getattr(NOTHING, name)})


@pytest.mark.parametrize("text", [None, "", "<html>", "[]", "{", "[" * 16000, "x" * 70000])
def test_without_a_document_the_rest_is_known(text: str | None) -> None:
    """A service that does not give it, or not as JSON, costs what is in it alone."""
    unknown: dict[str, Any] = dict.fromkeys(FIELDS)
    assert host_facts({**ANSWERS, "identity": text}) == replace(GOOD, **unknown)


def test_a_tag_that_ec2_could_not_have_is_none() -> None:
    """What is too long or cannot be printed is left out; what is no number is told."""
    for text, shards in (("8" * 257, None), ("8\n", None), ("\x1b[2J", None), ("x", "x"), ("", "")):
        assert host_facts({"shards": text}) == HostFacts(shards=shards)


@given(st.dictionaries(st.sampled_from(sorted(PATHS)), st.one_of(texts, documents)))
@example({"identity": "[" * 16000, "slot": "9999-99-99T99:99:99Z"})
@example({"identity": '{"pendingTime": 1e999, "region": ["ap-northeast-3"]}'})
def test_whatever_it_says_the_facts_are_small_and_printable(answers: dict[str, str | None]) -> None:
    """No answer raises, and nothing that could move a cursor or fill a manifest comes through."""
    facts = host_facts(answers)
    words = [facts.instance_id, facts.instance_type, facts.zone, facts.region, facts.image]
    for word in [*words, facts.shards]:
        assert word is None or (word.isprintable() and len(word) <= LONGEST_TAG)
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
