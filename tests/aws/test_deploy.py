"""`make deploy` and `make undeploy`: what would change is shown, what is there is kept, and all of it goes."""

import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.aws.deploy import (
    DeployError,
    Deployment,
    Wish,
    built_images,
    image_for,
    parameters_of,
)
from tests.aws.stack import IMAGE, reduced, template
from tests.parts.aws import PERSON, REGION, Aws
from tests.parts.awsproxy import Answer, AwsProxy
from tests.parts.command import completed

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/aws/deploy.py"
IMAGES = {REGION: {"x86_64": {"image": IMAGE}, "arm64": {"image": "ami-arm"}}}


class Faults(AwsProxy):
    """CloudFormation as the stand-in never is.

    Attributes:
        status: What a stack's state is said to be.
        refusal: Why every change is refused.
        code: With which no change is even looked at.
    """

    status = ""
    refusal = ""
    code = ""

    def answer(self, body: bytes) -> Answer | None:
        """Refuse in the stand-in's place."""
        if b"Action=CreateChangeSet&" not in body or not self.code:
            return None
        error = f"<Error><Code>{self.code}</Code><Message>a rule says no</Message></Error>"
        return 400, f"<ErrorResponse>{error}</ErrorResponse>".encode()

    def changed(self, request: bytes, answer: bytes) -> bytes:
        """Put the fault into the stand-in's words."""
        if b"Action=DescribeStacks&" in request and self.status:
            # That a stack is deleted, or in review, is no fault.
            said = f"<StackStatus>{self.status}</StackStatus>"
            return answer.replace(b"<StackStatus>CREATE_COMPLETE</StackStatus>", said.encode())
        if b"Action=DescribeChangeSet&" in request and self.refusal:
            said = f"<Status>FAILED</Status><StatusReason>{self.refusal}</StatusReason>"
            return answer.replace(b"<Status>CREATE_COMPLETE</Status>", said.encode())
        return answer


@pytest.fixture
def faults(aws_stand_in: Aws) -> Iterator[Faults]:
    """In front of the stand-in."""
    with Faults(aws_stand_in.url) as proxy:
        yield proxy


@pytest.fixture
def deployment(aws_stand_in: Aws, faults: Faults) -> Deployment:
    """The template, as far as the stand-in has its parts, without what it cannot delete in order."""
    document = reduced(template())
    network = ("AWS::EC2::VPC", "AWS::EC2::InternetGateway", "AWS::EC2::Subnet", "AWS::EC2::Route")
    document["Resources"] = {
        name: part
        for name, part in document["Resources"].items()
        if not part["Type"].startswith((*network, "AWS::EC2::SecurityGroup"))
        and name not in {"LaunchTemplate", "LaunchPolicy", "Instance", "StartPolicy", "Alarms"}
    }
    document["Outputs"] = {"Mode": {"Value": {"Ref": "Mode"}}}
    client = aws_stand_in.client("cloudformation", faults.url)
    return Deployment(client, json.dumps(document), IMAGES, poll=0.01)


def wish(stack: str, *, dry: bool = False, **given: str) -> Wish:
    """A wish for a stack."""
    return Wish(stack, REGION, given, dry)


def test_a_stack_comes_changes_and_goes(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deployed twice it is changed, with its parameters kept; undeployed it is gone."""
    stack = f"mayfly-{uuid.uuid4().hex[:6]}"
    deployment.up(wish(stack, VolumeSize="30"))
    assert "InstanceRole" in capsys.readouterr().out
    # The stand-in sees a change only where the template's own text has one.
    deployment._template = deployment._template.replace(
        '"Description": "What', '"Description": "All'
    )
    deployment.up(wish(stack, BucketName="scraped"))
    found = deployment._known(stack)
    values = {row["ParameterKey"]: row["ParameterValue"] for row in found["Parameters"]}
    assert (values["VolumeSize"], values["BucketName"]) == ("30", "scraped")
    assert values["ImageId"] == IMAGE
    assert "Modify   AWS::IAM::Role  InstanceRole" in capsys.readouterr().out
    deployment.down(stack, dry=True)
    assert deployment._known(stack) is not None
    deployment.down(stack, dry=False)
    assert deployment._known(stack) is None
    assert "every machine of the stack" in capsys.readouterr().out


def test_a_change_of_a_parameter_keeps_the_image_and_a_plain_deploy_takes_the_newest(
    deployment: Deployment,
) -> None:
    """An older image stays until `make deploy` without parameters, also where no built one is known."""
    stack = f"mayfly-{uuid.uuid4().hex[:6]}"
    ids = [f"ami-{number:017x}" for number in (1, 2)]

    def image(**given: str) -> str:
        # The stand-in sees a change only where the template's own text has one.
        deployment._template = deployment._template.replace('"Description": "', '"Description": "+')
        deployment.up(Wish(stack, REGION, given))
        found = deployment._known(stack)["Parameters"]
        (value,) = (row["ParameterValue"] for row in found if row["ParameterKey"] == "ImageId")
        return str(value)

    assert image() == IMAGE
    assert image(ImageId=ids[0]) == ids[0]
    assert image(VolumeSize="30") == ids[0]
    deployment._images = {}
    assert image(VolumeSize="40") == ids[0]
    deployment._images = {REGION: {"x86_64": {"image": ids[1]}}}
    assert image(VolumeSize="50") == ids[0]
    assert image() == ids[1]
    deployment._images = IMAGES
    assert image(InstanceType="t4g.medium") == "ami-arm"
    deployment.down(stack, dry=False)


def test_a_dry_run_shows_and_leaves_nothing(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """The changes are listed, and no stack stays behind, not even an empty one."""
    stack = f"mayfly-{uuid.uuid4().hex[:6]}"
    assert deployment.up(wish(stack, dry=True)) == {}
    shown = capsys.readouterr().out
    assert "Add      AWS::IAM::Role  InstanceRole" in shown
    assert shown.endswith("nothing was changed\n")
    assert deployment._known(stack) is None


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_failed_is_deleted_and_not_deployed(
    deployment: Deployment, faults: Faults, status: str
) -> None:
    """The way out that `make deploy` names is open."""
    stack = f"mayfly-{uuid.uuid4().hex[:6]}"
    deployment.up(wish(stack))
    faults.status = status
    with pytest.raises(DeployError, match=f"{stack} is {status}; `make undeploy`"):
        deployment.up(wish(stack))
    deployment.down(stack, dry=False)
    assert deployment._known(stack) is None


def test_a_refused_change_leaves_only_what_was_there(
    deployment: Deployment, faults: Faults
) -> None:
    """A new stack is gone with its refused change; one that somebody has in review stays, until it is undeployed."""
    stack = f"mayfly-{uuid.uuid4().hex[:6]}"
    faults.refusal = "no such image"
    with pytest.raises(DeployError, match="no such image"):
        deployment.up(wish(stack))
    assert deployment._known(stack) is None
    deployment._client.create_change_set(
        StackName=stack,
        ChangeSetName="theirs",
        ChangeSetType="CREATE",
        TemplateBody=deployment._template,
        Parameters=[{"ParameterKey": "ImageId", "ParameterValue": IMAGE}],
    )
    with pytest.raises(DeployError, match="no such image"):
        deployment.up(wish(stack))
    assert deployment._known(stack)["StackStatus"] == "REVIEW_IN_PROGRESS"
    deployment.down(stack, dry=False)
    assert deployment._known(stack) is None


@pytest.mark.parametrize(
    ("words", "variables", "region"),
    [
        ([], {}, REGION),
        ([], {"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ([], {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "us-east-1"}, "us-east-1"),
        (["--region", "eu-west-3"], {"AWS_REGION": "us-east-1"}, "eu-west-3"),
    ],
)
def test_a_stack_that_is_not_there_is_a_failure_that_names_the_region(
    aws_stand_in: Aws, words: list[str], variables: dict[str, str], region: str
) -> None:
    """The region is looked for as by `make ami`; machines in another one are not taken for gone."""
    environ = {name: text for name, text in PERSON.items() if name != "AWS_REGION"}
    environ |= {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": aws_stand_in.url, **variables}
    command = [sys.executable, str(SCRIPT), "down", "--yes", "--stack", "mayfly-none", *words]
    done = completed(command, environ=environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"deploy: there is no stack mayfly-none in {region}; ")


def test_a_misspelt_parameter_is_named(deployment: Deployment) -> None:
    """The message lists what there is."""
    with pytest.raises(DeployError, match=r"InstanceTyp; there are .*InstanceType"):
        deployment.up(wish("mayfly-x", InstanceTyp="t3.large"))


@pytest.mark.parametrize(
    ("kind", "image"),
    [("t3.medium", IMAGE), ("t4g.medium", "ami-arm"), ("m7gd.large", "ami-arm"), ("g5.x", IMAGE)],
)
def test_the_image_fits_the_processor(kind: str, image: str) -> None:
    """Types with a g after their number are arm64; g5 is a machine with graphics."""
    assert image_for(IMAGES, REGION, kind) == image


def test_without_an_image_the_way_to_one_is_told() -> None:
    """Before `make ami` there is nothing to launch."""
    cases: list[dict[str, Any]] = [{}, {REGION: {}}, {REGION: {"x86_64": {"image": None}}}]
    for images in cases:
        with pytest.raises(DeployError, match="make ami"):
            image_for(images, REGION, "t3.medium")


@pytest.mark.parametrize("pair", ["", "=", "=x", "Mode", "--mode=x"])
def test_what_is_no_parameter_is_refused(pair: str) -> None:
    """NAME=VALUE; a value may be empty, and may have an equals sign."""
    with pytest.raises(DeployError):
        parameters_of([pair])
    assert parameters_of(["Email=", "A=b=c"]) == {"Email": "", "A": "b=c"}


def test_without_credentials_it_says_so(tmp_path: Path) -> None:
    """No traceback, but what to set."""
    for words in (["up", "ImageId=ami-1"], ["down", "--yes"], ["down"]):
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        environ["AWS_EC2_METADATA_DISABLED"] = "true"
        done = completed([sys.executable, str(SCRIPT), *words], environ=environ)
        assert done.returncode == 1
        assert done.stderr.startswith("deploy: ")
        assert ("AWS_PROFILE" in done.stderr) or ("--yes" in done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("code", "keys"), [("ValidationError", False), ("ExpiredToken", True)])
def test_keys_are_not_blamed_for_parameters(faults: Faults, code: str, *, keys: bool) -> None:
    """A rule of the template that is broken has its own remedy, and other keys are none."""
    faults.code = code
    environ = {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": faults.url, **PERSON}
    command = [sys.executable, str(SCRIPT), "up", "--stack", "mayfly-none", f"ImageId={IMAGE}"]
    done = completed(command, environ=environ)
    assert done.returncode == 1
    assert "a rule says no" in done.stderr
    assert ("AWS_PROFILE" in done.stderr) is keys


@pytest.mark.parametrize("text", ["<<<<<<< ours", "[]", f'{{"{REGION}": 1}}'])
def test_a_file_of_images_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    """By whoever reads it, and by whoever adds to it: an image that was built and paid for is named all the same."""
    file, manifest = tmp_path / "ami.json", tmp_path / "manifest.json"
    facts = {"arch": "arm64", "version": "1", "commit": "c", "built": "b"}
    build = {"artifact_id": f"{REGION}:{IMAGE}", "custom_data": facts}
    manifest.write_text(json.dumps({"builds": [build]}))
    record = [sys.executable, str(ROOT / "packer/ami.py"), "record", str(manifest), str(file)]
    assert built_images(file) == {}
    assert completed(record).stdout == f"{IMAGE}\n"
    assert image_for(built_images(file), REGION, "t4g.medium") == IMAGE
    file.write_text(text)
    with pytest.raises(DeployError, match=r"ami\.json"):
        built_images(file)
    done = completed(record)
    assert (done.returncode, file.read_text()) == (1, text)
    assert done.stderr.startswith(f"ami: {IMAGE} is built, and {file} cannot take it: ")
