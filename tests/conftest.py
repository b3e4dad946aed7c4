"""The real parts as fixtures. A part that is not installed is a failure in CI, and is named and left out elsewhere."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.imports import reaches_a_part
from tests.parts.aws import Aws
from tests.parts.docker_engine import DockerEngine
from tests.parts.faultproxy import FaultProxy
from tests.parts.gitserver import GitServer
from tests.parts.grid import Grid
from tests.parts.missing import MissingPartError, do_without
from tests.parts.recorder import Recorder
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.parts.selenium_image import ensure_image

# A busy machine is no defect of what is tested; `timeout` of pytest ends what hangs.
settings.register_profile("mayfly", deadline=None, print_blob=True)
settings.load_profile("mayfly")

# Whoever starts the tests in the background has both ignored, and so would each program that a test starts: a run
# outlives its terminal then.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `quick` what starts no program and asks no server: neither the test nor a fixture reaches a part."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        fixtures = [each for defs in item._fixtureinfo.name2fixturedefs.values() for each in defs]
        modules = {item.module.__name__, *(fixture.func.__module__ for fixture in fixtures)}
        if not any(map(reaches_a_part, modules)):
            item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Whichever fixture misses a part, the test ends as `do_without` says."""
    try:
        yield
    except MissingPartError as error:
        do_without(error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """The same for a part that the test itself starts."""
    try:
        yield
    except MissingPartError as error:
        do_without(error)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server for all tests; one that stops it must start it again."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The name of an empty bucket of this test's own."""
    return s3_server.make_bucket()


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of the S3 server, to inject faults and to count requests."""
    with FaultProxy(s3_server) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A container engine that answers."""
    with DockerEngine() as engine:
        yield engine


@pytest.fixture(scope="session")
def selenium_image(docker_engine: DockerEngine) -> str:
    """The name of the stand-in Selenium image, which the engine has."""
    return ensure_image(docker_engine)


@pytest.fixture(scope="session")
def grid_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Selenium Grid with two sessions."""
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid.url


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    """A git server over HTTP for the repositories that `repo_builder` makes."""
    root = tmp_path / "git"
    root.mkdir()
    with GitServer(root) as server:
        yield server


@pytest.fixture
def repo_builder(git_server: GitServer) -> Repo:
    """An empty repository, `scrapers`, which the git server serves once it is pushed."""
    return Repo(git_server.root)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A receiver of HTTP requests."""
    with Recorder() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def aws_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A stand-in for AWS that all tests share."""
    with Aws(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def aws(aws_stand_in: Aws) -> dict[str, str]:
    """An environment whose AWS is a stand-in on this machine."""
    return dict(aws_stand_in.environ)


@pytest.fixture
def parameters(aws_stand_in: Aws) -> Iterator[Callable[..., None]]:
    """Stores SSM parameters, `parameters("/path", NAME="value")`, and removes them after the test."""
    client = aws_stand_in.client("ssm")
    names: list[str] = []

    def store(path: str, **values: str) -> None:
        for name, value in values.items():
            names.append(f"{path}/{name}")
            client.put_parameter(Name=names[-1], Value=value, Type="SecureString")

    yield store
    for name in names:
        client.delete_parameter(Name=name)
