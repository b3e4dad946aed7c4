"""`mayfly run --as-machine`: the machine's run on this computer, in a folder of its own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.base.errors import UsageError
from agent.cli.surroundings import kept_in
from agent.config.locate import LAUNCH, Surroundings
from agent.config.overrides import Override
from agent.config.settings import Settings
from agent.demo import claim_folder

FLAG = "--as-machine"
MARKER = ".mayfly-as-machine"


def launched(around: Surroundings, launch: Path | None) -> Surroundings:
    """Return the surroundings of a machine that was launched with what a file says; without a file, with nothing.

    Raises:
        UsageError: The file cannot be read.
    """
    if launch is None:
        return replace(around, launch=None)
    try:
        return replace(around, launch=around.read(around.cwd / launch))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{LAUNCH}: {launch} cannot be read: {error}") from error


def overrides(folder: Path, store: str | None, around: Surroundings) -> list[Override]:
    """Return what keeps a trial run in its folder, which is made.

    Raises:
        UsageError: The folder holds something else.
    """
    place = (around.cwd / folder).absolute()
    claim_folder(place, by=f"mayfly run {FLAG}", marker=MARKER)
    return kept_in(place, FLAG, around, store)


def differences(
    machine: Settings, *, store: str | None, units: bool, metadata: bool
) -> Iterator[str]:
    """Yield in what such a run differs from the machine's, each as a sentence.

    Args:
        machine: The configuration as the machine has it.
        store: The bucket that was named; None for one in the folder.
        units: Whether jobs get units of systemd here.
        metadata: Whether this computer has EC2's metadata service.
    """
    if store is None and machine.store.url:
        yield f"files go to a bucket in the folder, not to {machine.store.url} (--store says otherwise)"
    sources = (
        machine.store.credentials,
        machine.secrets.source or "",
        machine.release.credentials or "",
    )
    if any(source.startswith("ssm:") for source in sources):
        yield "secrets are read with your AWS profile and region, not with the machine's role"
    if not units:
        yield "jobs are processes of this user; the machine gives each a unit and a user of its own (root and systemd)"
    if not metadata:
        yield "there is no metadata service: no slot, no notice of the end, no cost"
    yield "the state directory stays from run to run; a machine in launch mode begins with an empty disk"
    yield "the power stays on"
