"""A page to open, at an address that the browser can reach."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.parts.loopback_http import LoopbackHttp, QuietHandler

TITLE = "A page of the tests"
PAGE = f"""<!doctype html><title>{TITLE}</title>
<a id="download" href="/report.csv" download>report</a>
<p id="zone"></p><script>zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone</script>"""
REPORT = b"name,price\nmayfly,1\n"


class _Pages(QuietHandler):
    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        is_report = self.path == "/report.csv"
        kind = {"Content-Type": "text/csv" if is_report else "text/html"}
        self.answer(200, REPORT if is_report else PAGE.encode(), kind)


@contextmanager
def site(listen: str, host: str) -> Iterator[str]:
    """Serve the page on the address `listen`; yields its URL with the host name `host`."""
    with LoopbackHttp(_Pages, host=listen) as server:
        yield f"http://{host}:{server.port}"
