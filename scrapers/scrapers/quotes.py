"""Collect the quotes of a site that JavaScript renders, page by page."""

from collections import Counter

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from scrapers.kit import (
    Job,
    JobFailure,
    Result,
    browser_session,
    json_lines,
    read_json,
    run_job,
    write_json,
    write_text,
)

PAGE_SECONDS = 10
MAX_PAGES = 500
"""A site whose last page links to its first must not keep the machine up."""


def main(job: Job) -> Result:
    """Write `quotes.jsonl` and `summary.md`, and remember which quotes were seen."""
    memory = job.state_dir / "seen.json"
    seen: set[str] = set(read_json(memory, []))
    authors: dict[str, str] = {}
    pages = 0
    with browser_session(job) as driver, json_lines(job.output_dir / "quotes.jsonl") as write:
        driver.get(job.url("quotes"))
        while True:
            pages += 1
            wait_for_page(driver, pages)
            for element in driver.find_elements(By.CSS_SELECTOR, "article.quote"):
                quote = read_quote(element)
                write(quote)
                authors[quote["id"]] = quote["author"]
            following = driver.find_elements(By.CSS_SELECTOR, "a[rel=next]")
            if not following:
                break
            if pages == MAX_PAGES:
                raise JobFailure("page_changed", f"still a next page after {MAX_PAGES}")
            following[0].click()
    new = authors.keys() - seen
    write_text(job.output_dir / "summary.md", summary(authors, new))
    write_json(memory, sorted(seen | authors.keys()))
    message = f"{len(new)} of {len(authors)} are new"
    return Result(items=len(authors), message=message, metrics={"new": len(new), "pages": pages})


def wait_for_page(driver: WebDriver, number: int) -> None:
    """Wait until the page's script has shown page `number`; a list without a quote is not one."""
    page = f"main[data-page='{number}'][aria-busy=false] article.quote"
    WebDriverWait(driver, PAGE_SECONDS, poll_frequency=0.05).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, page),
        f"page {number} did not show a quote",
    )


def read_quote(element: WebElement) -> dict[str, str]:
    """Return the fields of one quote."""
    tags = [tag.text for tag in element.find_elements(By.CSS_SELECTOR, ".tag")]
    return {
        "id": element.get_attribute("data-id") or "",
        "text": element.find_element(By.CSS_SELECTOR, ".text").text,
        "author": element.find_element(By.CSS_SELECTOR, ".author").text,
        "tags": " ".join(tags),
    }


def summary(authors: dict[str, str], new: set[str]) -> str:
    """Return a page about the quotes: how many, how many new, by whom."""
    lines = [
        "# Quotes",
        "",
        f"{len(authors)} quotes, {len(new)} of them new.",
        "",
        "| author | quotes |",
        "|---|--:|",
    ]
    lines += [
        f"| {author} | {count} |" for author, count in Counter(authors.values()).most_common()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_job(main)
