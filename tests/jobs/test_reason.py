"""The line that says why a program failed, in outputs as programs leave them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.jobs.reason import LONGEST, reason_of_output

MARK = "-> "
MARKED = {
    "selenium": """Traceback (most recent call last):
  File "/srv/shop.py", line 41, in <module>
    main()
  File "/srv/env/lib/python3.11/site-packages/selenium/webdriver/remote/errorhandler.py", line 232, in check_response
    raise exception_class(message, screen, stacktrace)
-> selenium.common.exceptions.NoSuchElementException: Message: no such element: {"method":"id"}
  (Session info: chrome=131.0.6778.85); For documentation on this error, please visit: https://www.selenium.dev/
Stacktrace:
#0 0x55d0f4a1b12a <unknown>
#1 0x55d0f4533b20 <unknown>
#24 0x7fd4a6ea81c4 <unknown>
""",
    "selenium without a message": """Traceback (most recent call last):
  File "/srv/shop.py", line 12, in <module>
    WebDriverWait(driver, 10).until(found)
-> selenium.common.exceptions.TimeoutException: Message:\x20
Stacktrace:
#0 0x55d0f4a1b12a <unknown>
""",
    "chain": """Traceback (most recent call last):
  File "a.py", line 2, in <module>
    int("x")
ValueError: invalid literal for int() with base 10: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 4, in <module>
    raise LoginExpired("sign in again") from error
-> __main__.LoginExpired: sign in again
""",
    "syntax": """  File "/srv/shop.py", line 3
    print("x"
         ^
-> SyntaxError: '(' was never closed
""",
    "playwright": """Traceback (most recent call last):
  File "/srv/shop.py", line 7, in <module>
    page.click("#go")
-> playwright._impl._errors.TimeoutError: Page.click: Timeout 30000ms exceeded.
Call log:
  - waiting for locator("#go")
=========================== logs ===========================
waiting for selector
============================================================
""",
    "node": """/app/shop.js:3
  throw new Error("no price on the page");
  ^

-> Error: no price on the page
    at Object.<anonymous> (/app/shop.js:3:9)
    at Module._compile (node:internal/modules/cjs/loader:1256:14)

Node.js v20.11.0
""",
    "node's module": """node:internal/modules/cjs/loader:1080
  throw err;
  ^

-> Error: Cannot find module 'puppeteer'
Require stack:
- /app/shop.js
    at Module._resolveFilename (node:internal/modules/cjs/loader:1077:15) {
  code: 'MODULE_NOT_FOUND',
  requireStack: [ '/app/shop.js' ]
}

Node.js v18.19.0
""",
    "java": """-> Exception in thread "main" java.lang.RuntimeException: java.io.IOException: closed
\tat com.example.JobContext.main(JobContext.java:14)
Caused by: java.io.IOException: closed
\t... 1 more
""",
    "go": """-> panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.main()
\t/src/main.go:8 +0x1d
exit status 2
""",
    "go, nil": """-> panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48e0f6]

goroutine 1 [running]:
main.prices(...)
\t/src/main.go:21
main.main()
\t/src/main.go:8 +0x16
""",
    "ruby": """-> shop.rb:3:in 'Integer#/': divided by 0 (ZeroDivisionError)
\tfrom shop.rb:3:in 'Object#price'
\tfrom shop.rb:6:in '<main>'
""",
    "php": """-> PHP Fatal error:  Uncaught RuntimeException: no price in /app/shop.php:3
Stack trace:
#0 {main}
  thrown in /app/shop.php on line 3
""",
    ".net": """-> Unhandled exception. System.InvalidOperationException: no price
   at JobContext.Main() in /src/JobContext.cs:line 5
""",
    "shell": "fetching\n-> ./fetch.sh: line 3: jq: command not found\n",
    "make": "-> curl: (6) Could not resolve host: example.org\nmake: *** [Makefile:4: fetch] Error 6\n",
    "japanese": "-> 価格がありません\n----\n",
}
"""Outputs whose line with the reason is marked."""


def plain(case: str) -> str:
    """Return an output without the mark."""
    return MARKED[case].replace(MARK, "")


@pytest.mark.parametrize("case", MARKED)
def test_the_marked_line_is_the_reason(case: str) -> None:
    """Neither the stack below it, nor the interpreter's version."""
    (marked,) = (line for line in MARKED[case].split("\n") if line.startswith(MARK))
    assert reason_of_output(plain(case).split("\n")) == marked.removeprefix(MARK).strip()


GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 9, in <module>
  |     raise ExceptionGroup("two shops", errors)
  | ExceptionGroup: two shops (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Exception: sold out
    +------------------------------------
"""
JAVA = """Exception in thread "main" java.lang.IllegalStateException: the shop's list was not read
\tat com.example.JobContext.main(JobContext.java:14)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.pollConnect(Native Method)
\t... 12 more
"""
RUST = """thread 'main' panicked at src/main.rs:4:10:
called `Option::unwrap()` on a `None` value
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
"""
CPP = """terminate called after throwing an instance of 'std::runtime_error'
  what():  no price
"""
BAR = "  3%|\u258e         | 3/100 [00:01<00:40,  2.39it/s]"
EMPTY_BAR = "  0%|          | 0/100 [00:00<?, ?it/s]"
TRACEBACK = plain("chain").partition("\n\n")[0]
GIVEN_UP = "2026-11-26 04:05:06 ERROR giving up after 3 attempts"
CLOSED = "2026-11-26 04:05:06 [scrapy] INFO: Spider closed (finished)"
NO_ELEMENT = (
    'selenium.common.exceptions.NoSuchElementException: Message: no such element: {"method":"id"}'
)
JAVA_REASON = (
    'Exception in thread "main" java.lang.IllegalStateException: the shop\'s list was not read;'
    " Caused by: java.net.ConnectException: Connection refused"
)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("\n".join(f"batch-1  | {line}" for line in plain("selenium").splitlines()), NO_ELEMENT),
        (
            f"{EMPTY_BAR}\r{BAR}\n{TRACEBACK}\n{BAR}\n",
            "ValueError: invalid literal for int() with base 10: 'x'",
        ),
        (GROUP, "ExceptionGroup: two shops (2 sub-exceptions)"),
        (f"{plain('chain')}{GIVEN_UP}\n", GIVEN_UP),
        (f"{plain('chain')}{CLOSED}\n", "__main__.LoginExpired: sign in again"),
        (JAVA, JAVA_REASON),
        (RUST, " ".join(RUST.splitlines()[:2])),
        (
            CPP,
            "terminate called after throwing an instance of 'std::runtime_error' what():  no price",
        ),
        ("\x1b[31mError: no price\x1b[39m\n    at main (/app/a.js:1:1)\n", "Error: no price"),
        (f"page 3 has no list\n{BAR}\n", "page 3 has no list"),
        (f"{BAR}\n", BAR.strip()),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_what_surrounds_a_reason_is_taken_off(output: str, reason: str) -> None:
    """The names of services, bars, colours, a group's frame; what is thrown on two lines is on one."""
    assert reason_of_output(output.split("\n")) == reason


def test_a_long_reason_keeps_its_head() -> None:
    """What kind of exception it is stands first."""
    reason = reason_of_output([f"sqlite3.OperationalError: {'x' * 5000}"])
    assert reason == f"sqlite3.OperationalError: {'x' * 5000}"[:LONGEST]


@given(st.lists(st.text(max_size=80), max_size=30))
def test_any_output_has_a_reason_unless_it_is_blank(lines: list[str]) -> None:
    """It is one line, and there is one where anything at all was printed."""
    reason = reason_of_output(lines)
    assert "\n" not in reason or any("\n" in line for line in lines)
    assert len(reason) <= LONGEST
    assert bool(reason) or not any(line.strip() for line in lines)


@pytest.mark.parametrize("line", ["7" * 2000, "%|" * 1000, "a." * 1000, "7 %" * 700, "|\\r" * 900])
def test_no_output_makes_the_search_long(line: str) -> None:
    """Two hundred lines of the longest kind; pytest's own limit is the judge."""
    assert reason_of_output([line] * 200)


@pytest.mark.parametrize(
    "line",
    [
        " Network mayfly-20261126t075241z-1b5e3f-scraper-1_default  Created",
        " Container mayfly-x-selenium-1  Starting",
        ' Volume "mayfly-x_data"  Created',
        " Container mayfly-x-db-1  Healthy",
        " scraper  Built",
        " chrome Pulled ",
    ],
)
def test_what_compose_says_of_its_work_is_no_reason(line: str) -> None:
    """A program that said nothing failed without one."""
    assert reason_of_output([line.rstrip()]) == ""
    assert reason_of_output(["it broke", line.rstrip()]) == "it broke"
