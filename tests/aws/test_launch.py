"""What the stack's form says reaches the machine as user data, and is the configuration that it says."""

import re
from pathlib import Path

from agent.config.locate import Surroundings, load_settings
from agent.config.overrides import Loaded
from agent.config.settings import Cost
from agent.machine.cost import GIB, standing_usd_month
from tests.aws.conftest import Make
from tests.aws.stack import Stack

PAGE = Path(__file__).parents[2] / "docs/launch.md"


def configured(stack: Stack) -> Loaded:
    """The configuration of a machine that the stack launches, from an image that knows a repository."""
    return load_settings(
        None,
        Surroundings(
            {},
            machine=True,
            cwd=Path("/"),
            read=lambda _: (
                '[release]\nrepository = "https://git.example/image.git"\ntrack = "v1.*"'
            ),
            launch=stack.user_data,
        ),
    )


def test_an_empty_form_leaves_the_image_as_it_is(make: Make) -> None:
    """But for what the stack knows: schedule, disk and credits. A machine that is stopped keeps its disk."""
    found = configured(make(ScheduleExpression="cron(0 3 * * ? *)", TimeZone="Asia/Tokyo"))
    assert found.faults == ()
    assert found.settings.release.track == "v1.*"
    assert {key for key, origin in found.origins.items() if origin == "user data"} == {
        "schedule",
        "schedule.expression",
        "schedule.timezone",
        "cost",
        "cost.volume",
        "cost.credits",
    }
    schedule = found.settings.schedule
    assert (schedule.expression, schedule.timezone) == ("cron(0 3 * * ? *)", "Asia/Tokyo")
    assert not found.settings.power.has_disk(machine=True)
    assert configured(make(Mode="stopped")).settings.power.has_disk(machine=True)


def test_what_a_run_costs_is_reckoned_with_the_disk_and_the_credits_of_the_stack(
    make: Make,
) -> None:
    """A disk that is kept is billed all month, and credits that are not bought cost nothing."""
    first = configured(make()).settings.cost
    assert first == Cost()
    stopped = configured(make(Mode="stopped", VolumeSize="40", CpuCredits="standard")).settings.cost
    assert (stopped.volume, stopped.credits, stopped.keeps_volume) == (40 * GIB, "standard", True)
    assert standing_usd_month(stopped) - standing_usd_month(first) == 40 * stopped.volume_month


def test_two_stacks_from_one_image_differ_in_what_their_forms_say(make: Make) -> None:
    """Test and production, side by side, as docs/launch.md types them and with its `Config`."""
    page = PAGE.read_text("utf-8")
    forms = re.findall(r'^make deploy STACK=\S+ +PARAMETERS="(.*)"$', page, re.MULTILINE)
    (config,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    first, second = (dict(word.split("=", 1) for word in form.split()) for form in forms)
    test = configured(make(**first, Config=config))
    prod = configured(make(**second, Track="v2.*", BrowserImage="selenium/x:1"))
    assert (test.faults, prod.faults) == ((), ())
    assert (test.settings.store.url, test.settings.limits.jobs) == ("s3://scraped/test", 4)
    assert (test.settings.schedule.grace, test.settings.cost.currency) == (1800, "JPY")
    assert (test.settings.release.timeout, test.settings.release.track) == (300, "v1.*")
    assert (prod.settings.store.url, prod.settings.limits.jobs) == ("s3://scraped/prod", 2)
    assert (prod.settings.release.track, prod.settings.browser.image) == ("v2.*", "selenium/x:1")


def test_every_field_of_the_form_is_a_key(make: Make) -> None:
    """Whatever is filled in arrives where its name says."""
    form = {
        "Repository": ("release", "repository", "https://git.example/s.git"),
        "Track": ("release", "track", "v3.*"),
        "StoreUrl": ("store", "url", "s3://b/p"),
        "StoreEndpoint": ("store", "endpoint", "https://s3.example"),
        "StoreRegion": ("store", "region", "r-1"),
        "BrowserImage": ("browser", "image", "selenium/y:2"),
    }
    found = configured(make(**{name: value for name, (_, _, value) in form.items()}))
    assert found.faults == ()
    settings = found.settings.model_dump()
    assert {name: settings[table][key] for name, (table, key, _) in form.items()} == {
        name: value for name, (_, _, value) in form.items()
    }
