"""What a machine was launched with stands above the image's file, key by key, and below variables and flags."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.explain import explained
from agent.config.faults import Fault
from agent.config.locate import Surroundings, load_settings, of_cloud_init
from agent.config.overrides import Loaded
from agent.config.settings import Settings

IMAGE = """
[release]
repository = "https://git.example/scrapers.git"
[limits]
jobs = 2
run = "1h"
"""


def loaded(launch: str | Fault | None, *pairs: str, image: str = IMAGE, **environ: str) -> Loaded:
    """The configuration of a machine with this image and this launch."""
    around = Surroundings(environ, machine=True, cwd=Path("/"), read=lambda _: image, launch=launch)
    return load_settings(None, around, pairs)


def test_a_table_of_the_launch_wins_key_by_key() -> None:
    """What the launch does not name stays as the image says; variables and flags come last."""
    found = loaded(
        '[limits]\njobs = 3\ngrace = "20s"\n[store]\nurl = "s3://test/x"',
        "limits.grace=5s",
        MAYFLY_STORE_REGION="r",
    )
    assert found.faults == ()
    limits, store = found.settings.limits, found.settings.store
    assert (limits.run, limits.jobs, limits.grace) == (3600, 3, 5)
    assert (store.url, store.region) == ("s3://test/x", "r")
    origins = {value.key: value.source for value in explained(found)}
    assert origins["limits.run"] == "/etc/mayfly/agent.toml"
    assert origins["limits.jobs"] == origins["store.url"] == "user data"
    assert origins["limits.grace"] == "--set limits.grace"
    assert origins["store.region"] == "environment MAYFLY_STORE_REGION"
    assert origins["store.endpoint"] == "default"


@pytest.mark.parametrize(
    ("launch", "says"),
    [
        ("[limits]\nrnu = 1", 'user data: limits.rnu: unknown key (did you mean "run"?)'),
        ("[limits\n", "user data: not valid TOML"),
        ("limits = 3", "user data: limits: "),
        ('[release]\nbranch = "a"\ntrack = "v*"', 'user data: release: "track" and "branch"'),
        ("url = 1", "user data: url: unknown key"),
    ],
)
def test_a_fault_of_the_launch_is_told_as_its_own(launch: str, says: str) -> None:
    """It names user data, and a run still knows the image's bucket to report it in."""
    found = loaded(launch)
    assert [str(fault)[: len(says)] for fault in found.faults] == [says]
    assert found.settings == Settings()
    assert found.without_launch is not None
    assert found.without_launch.limits.run == 3600


def test_a_fault_of_the_image_is_nobody_else_s() -> None:
    """Then nobody knows a bucket to report it in."""
    found = loaded("[limits]\njobs = 3", image="[limits]\nrun = 0")
    assert [fault.source for fault in found.faults] == ["/etc/mayfly/agent.toml"]
    assert found.without_launch is None


def test_a_launch_that_mends_the_image_is_enough() -> None:
    """What counts is the whole: a key that the launch replaces may be wrong in the image."""
    found = loaded("[limits]\nrun = 60", image="[limits]\nrun = 0")
    assert (found.faults, found.settings.limits.run) == ((), 60)


def test_a_launch_that_nobody_can_read_is_a_fault() -> None:
    """The image may be for another bucket than the launch: nothing runs on half of the configuration."""
    fault = Fault("user data", "", "cannot be read: no answer", "check it")
    found = loaded(fault)
    assert found.faults == (fault,)
    assert found.without_launch is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#!/bin/sh\n",
        "\n#cloud-config\n",
        "Content-Type: multipart/mixed; x",
        "## template: jinja\n",
        "#include\nhttps://x",
        "\x1f\ufffd\x08\0",
    ],
)
def test_what_is_cloud_init_s_is_left_to_it(text: str) -> None:
    """A machine may have user data of another kind; it is no configuration of ours and no fault."""
    assert of_cloud_init(text)
    assert loaded(text) == loaded(None)


@given(st.text(max_size=60))
def test_whatever_a_launch_says_is_settings_or_faults(text: str) -> None:
    """No user data breaks the agent."""
    found = loaded(text)
    assert not found.faults or found.settings == Settings()


def test_an_explanation_shows_no_secret() -> None:
    """A password in an address stays hidden; everything else is shown."""
    found = loaded('[release]\nrepository = "https://me:hunter22@git.example/x.git"')
    shown = {value.key: value.value for value in explained(found)}
    assert "hunter22" not in str(shown)
    assert "git.example" in shown["release.repository"]
    assert len(shown) == sum(len(table) for table in Settings().model_dump().values())
