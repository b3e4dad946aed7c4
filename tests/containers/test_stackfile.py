"""What compose makes of a stack's file, and what of it runs; without an engine."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.base.containers import Mount
from agent.config.jobsfile import Job
from agent.jobs.containers.stackfile import Reading, StackFile, read_stack
from tests.parts.command import surroundings
from tests.parts.compose import with_plugin

TOKEN = "hush-hush-hush"


class Place:
    """A release with a stack, and the folder of a job's own."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.own = folder / "tree", folder / "own"
        self.tree.mkdir()
        self.own.mkdir()

    async def read(self, text: str, **more: Any) -> Reading:
        """Read a stack whose batch service is `batch`, as a job with a secret does."""
        (self.tree / "compose.yml").write_text(text)
        job = Job(name="a", compose="compose.yml", service="batch", **more)
        mounts = (Mount(str(self.own / "$output"), job.output or "/mayfly/output"),)
        environ = with_plugin(surroundings({"TOKEN": TOKEN}))
        wanted = StackFile(job, self.tree, project="p", environ=environ, mounts=mounts)
        return await read_stack(wanted, self.own)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A release and a folder."""
    return Place(tmp_path.resolve())


ALONE = """
services:
  batch:
    image: x
    env_file: [gone.env]
    environment: {A: $$1}
  db:
    image: x
    env_file: [gone.env, {path: kept.env, required: false}]
    environment: [B=own]
  web:
    image: x
    env_file: kept.env
"""


async def test_a_service_without_its_env_file_gets_what_the_job_names(place: Place) -> None:
    """What the service sets itself stays. The values are in one file, which is this user's own."""
    (place.tree / "kept.env").write_text("C=kept\nTOKEN=an older one\n")
    reading = await place.read(ALONE, secrets=("TOKEN",), env={"B": "the job's"})
    assert reading.faults == ()
    assert reading.stood_in == ("gone.env", "gone.env")
    services = reading.document["services"]
    assert services["batch"]["environment"] == {"A": "$1"}
    assert services["db"]["environment"] == {"B": "own", "C": "kept", "TOKEN": TOKEN}
    assert services["web"]["environment"] == {"C": "kept", "TOKEN": "an older one"}
    having = [file for file in place.own.iterdir() if TOKEN in file.read_text()]
    assert having == [place.own / "stack.json"]
    assert stat.S_IMODE(having[0].stat().st_mode) == 0o600


ODD = "\N{SPIDER} $HOME $$ \u2028 \x85 \x7f."


async def test_what_runs_is_what_was_judged(place: Place) -> None:
    """Compose reads the file that was written as the document that was judged, whatever is in it."""
    text = {
        "services": {"batch": {"image": "x", "environment": {"ODD": ODD.replace("$", "$$")}}},
    }
    reading = await place.read(json.dumps(text).replace("\\ud83d\\udd77", "\\U0001f577"))
    assert reading.faults == ()
    assert reading.compose is not None
    assert reading.document["services"]["batch"]["environment"]["ODD"] == ODD
    assert reading.compose.files == (place.own / "stack.json",)
    again = await reading.compose.resolved()
    own = reading.document["services"]["batch"]
    assert again["services"]["batch"] | {"volumes": own["volumes"]} == own
    (mount,) = again["services"]["batch"]["volumes"]
    assert mount["source"] == str(place.own / "$output")


VARIABLES = """
services:
  batch:
    image: x
    volumes: ["${APP:-./app}:/app", "${DATA:-data}:/data", "${WHERE:-/srv}/x:/x"]
volumes: {data: {}}
"""


async def test_mounts_are_known_whose_sources_have_variables(place: Place) -> None:
    """Compose as it was until 2025 splits `${APP:-./app}` at its colon, unless it has replaced it before."""
    (place.tree / "app").mkdir()
    (place.tree / "app" / "run.sh").touch()
    reading = await place.read(VARIABLES, output="/app/out")
    assert [fault.key for fault in reading.faults] == ["services.batch.volumes"]
    assert reading.mounted == {"/app": "app"}
    assert reading.volumes == ("/data",)
    reading = await place.read(VARIABLES.replace("/srv", "."), output="/app")
    assert reading.faults == ()
    assert (reading.output, reading.mounted) == ("app", {"/app": "app", "/x": "x"})
