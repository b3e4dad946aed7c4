"""A run on a laptop as the machine would do it: in a folder of its own, and nothing else of the computer."""

import pytest

from agent.cli.as_machine import differences
from agent.config.settings import Settings
from tests.bucket.bucket import Bucket
from tests.run.bench import Bench, job


@pytest.fixture
def config(bench: Bench) -> str:
    """What the image would have as its agent.toml, and a release."""
    bench.release("v1", job("plain", "echo x > $MAYFLY_OUTPUT_DIR/file"))
    path = bench.folder / "agent.toml"
    path.write_text(
        f'[release]\nrepository = "{bench.repo.bare}"\n[store]\nurl = "s3://scraped/prod"\n'
        '[browser]\nurl = "http://127.0.0.1:9"\nport = 0\n[power]\nafter = "poweroff"\n'
    )
    return str(path)


def test_it_runs_in_its_folder_and_says_what_differs(bench: Bench, config: str) -> None:
    """State and bucket are below it; production's bucket is not asked, and the power stays on.

    A fault of the launch is in a manifest, with the machine's exit code.
    """
    place, launch = bench.folder / "trial", bench.folder / "launch.toml"
    launch.write_text("[limits]\njobs = 1\n")
    command = ("run", "--config", config, "--as-machine", str(place), "--json")
    done = bench.mayfly(*command, "--launch", str(launch))
    assert done.returncode == 0, done.stderr
    bucket = Bucket.in_folder(place / "bucket")
    assert bucket.newest.status == "succeeded"
    assert {path.name for path in place.iterdir()} == {".mayfly-as-machine", "bucket", "state"}
    told = [
        line for line in done.stderr.splitlines() if line.startswith("differs from the machine:")
    ]
    assert any("not to s3://scraped/prod" in line for line in told)
    assert any("the power stays on" in line for line in told)
    again = bench.mayfly(*command)
    assert again.returncode == 0, again.stderr
    launch.write_text("[limits]\nrnu = 1\n")
    assert bench.mayfly(*command, "--launch", str(launch)).returncode == 4
    assert [run.status for run in bucket.runs.values()] == ["succeeded", "succeeded", "failed"]


def test_a_folder_of_somebody_else_is_left_alone(bench: Bench, config: str) -> None:
    """With a remedy, and before anything is read or written."""
    place = bench.folder / "work"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    done = bench.mayfly("run", "--config", config, "--as-machine", str(place))
    assert (done.returncode, [path.name for path in place.iterdir()]) == (2, ["mine.txt"])
    assert "name a new or an empty folder: mayfly run --as-machine DIR" in done.stderr
    alone = bench.mayfly("run", "--launch", "x.toml")
    assert (alone.returncode, "--launch goes with --as-machine" in alone.stderr) == (2, True)


@pytest.mark.parametrize(
    ("settings", "facts", "words"),
    [
        ({}, {"units": True, "metadata": True}, ["state directory stays", "power stays on"]),
        (
            {"store": {"url": "s3://b/p"}},
            {"store": "/tmp/x"},
            ["processes of this user", "no metadata service"],
        ),
        ({"secrets": {"source": "ssm:/x"}}, {}, ["your AWS profile"]),
        ({"release": {"credentials": "ssm:/git"}}, {}, ["your AWS profile"]),
    ],
)
def test_what_differs_is_told_and_nothing_else(
    settings: dict[str, object], facts: dict[str, object], words: list[str]
) -> None:
    """Each sentence only where it is so."""
    known = {"store": None, "units": False, "metadata": False, **facts}
    told = list(differences(Settings.model_validate(settings), **known))  # type: ignore[arg-type]
    assert all(any(word in line for line in told) for word in words), told
    assert any("not to s3://b/p" in line for line in told) is False
    assert any("unit and a user" in line for line in told) is not known["units"]
