"""What a run has to load before its first job: every import delays it."""

import sys
from pathlib import Path

from tests.bucket.bucket import Bucket
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench, job

LATER = {
    *("boto3", "botocore", "s3transfer", "requests", "urllib3", "charset_normalizer"),
    *("rich", "apprise", "uvicorn", "starlette", "jinja2", "prometheus_client", "humanize"),
    *("multiprocessing", "xml", "html", "unittest", "agent.jobs.containers.isolation", "consumer"),
}
"""What a run that needs it loads when it comes to it."""

JOB = job("first", "echo the-job > $MAYFLY_OUTPUT_DIR/file")
WATCHED = """
import pathlib, sys
before = set(sys.modules)
from agent.cli import main

def note(event, arguments):
    if event == "subprocess.Popen" and "the-job" in str(arguments[1]):
        pathlib.Path({loaded!r}).write_text("\\n".join(set(sys.modules) - before))

sys.addaudithook(note)
main()
"""
"""`mayfly`, which writes down what it has loaded when the job's program starts; modules of a watcher do not count."""


def test_the_first_job_waits_for_no_import_that_it_does_not_need(
    bench: Bench, s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    """With a bucket on S3, whose keys are in the environment, and a release that is there already."""
    bench.deliver_to(Bucket.on_s3(s3_server, s3_bucket))
    bench.release("v1", JOB)
    bench.run()  # the next one knows that no browser is needed
    loaded = tmp_path / "loaded"
    bench.program = (sys.executable, "-c", WATCHED.format(loaded=str(loaded)))
    bench.run(code=0)
    modules = set(loaded.read_text().splitlines())
    assert "agent.jobs.attempt" in modules
    assert modules & LATER == set()
