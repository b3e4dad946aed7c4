"""Make the browser download every report of a page, under the names the site gives them."""

from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.ui import WebDriverWait

from scrapers.kit import Downloads, Job, Result, browser_session, run_job

PAGE_SECONDS = 10
BUTTONS = (By.CSS_SELECTOR, "button.download")


def main(job: Job) -> Result:
    """Click each download button in turn; the files are the results."""
    with browser_session(job, downloads=True) as driver:
        driver.get(job.url("reports"))
        wait = WebDriverWait(driver, PAGE_SECONDS)
        buttons = wait.until(
            expected.presence_of_all_elements_located(BUTTONS), "no download button"
        )
        downloads = Downloads(job, driver)
        files = [downloads.save(button.click) for button in buttons]
    size = sum(file.stat().st_size for file in files)
    return Result(items=len(files), message=f"{len(files)} reports", metrics={"bytes": size})


if __name__ == "__main__":
    run_job(main)
