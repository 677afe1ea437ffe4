"""The page of the server in headless Chromium: `make test-engines` installs one from Debian where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import fit_log, random_rows
from live_server import served

from sessrec.serving.api import create_app
from sessrec.serving.engine import TorchEngine
from sessrec.serving.item_table import read_item_table
from sessrec.serving.log_sessions import read_log_sessions
from sessrec.serving.page import Page
from sessrec.serving.service import Service

webdriver: Any = pytest.importorskip("selenium.webdriver", reason="needs selenium: make test-engines")
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = [
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver: make test-engines"),
    pytest.mark.filterwarnings("ignore:at .* other items score exactly"),
]
ARGUMENTS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1300,1000"),
)
RUNS = ("recurrent", "rules")
PICTURE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/%3E"


class Browser:
    """What a person sees and does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 20).until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", selector
        )

    def items(self, selector: str) -> list[str]:
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0] + ' button')].map((node) => node.dataset.item)", selector
        )

    def list_of(self, number: int) -> list[str]:
        return self.items(f"[data-model='{number}']")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(150, 14))]
        Path("clicks.tsv").write_text("\n".join(rows) + "\n")
        words = ["--data.test_ratio", "0.1", "--data.val_ratio", "0"]
        fit_log("clicks.tsv", *words, "--model.n_sample", "8", model="GRU4Rec", run=RUNS[0])
        fit_log("clicks.tsv", *words, model="Markov", run=RUNS[1])
        Path("items.tsv").write_text(f"ItemId\ttitle\tpicture\nx3\t<b>Red</b> hat\t{PICTURE}\n")
        files = [folder / "lightning_logs" / run / "checkpoints" / "last.ckpt" for run in RUNS]
        services = [Service(file, TorchEngine.of_checkpoint, None) for file in files]
        return Page(services, read_item_table(Path("items.tsv")), read_log_sessions("clicks.tsv", files[0]))


@pytest.fixture(scope="module")
def browser(page: Page) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ARGUMENTS:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with served(create_app(page.services[0], page=page)) as address:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            driver.get(address)
            yield Browser(driver)
            faults = [line["message"] for line in driver.get_log("browser") if "404" not in line["message"]]
        finally:
            driver.quit()
    assert not faults


def expected(page: Page, number: int, items: list[str]) -> list[str]:
    model = page.services[number].engine.model  # type: ignore[attr-defined]
    return [item for item, _ in model.recommend(items, 20)]


def test_a_session_is_made_by_search_and_clicks(browser: Browser, page: Page) -> None:
    browser.wait(lambda: len(browser.items("#found")) == 14)
    assert all("empty" in text for text in browser.texts("[data-model] > .soft"))
    search = browser.all("#search")[0]
    search.send_keys("red")
    browser.wait(lambda: browser.items("#found") == ["x3"])
    assert "<b>Red</b> hat" in browser.texts("#found button")[0]  # a title is no HTML
    assert browser.driver.execute_script("return document.querySelector('#found img').naturalWidth") == 9
    browser.all("#found button")[0].click()
    browser.wait(lambda: browser.list_of(0) == expected(page, 0, ["x3"]))
    assert browser.list_of(1) == expected(page, 1, ["x3"])
    browser.all("[data-model='1'] button")[0].click()
    session = ["x3", expected(page, 1, ["x3"])[0]]
    browser.wait(lambda: browser.list_of(0) == expected(page, 0, session))
    assert browser.items("#session") == session
    moved = [text for text in browser.texts("[data-model='0'] .move") if text]
    assert moved
    assert all(text == "new" or text[0] in "▲▼" for text in moved)
    browser.all("#session button")[0].click()
    browser.wait(lambda: browser.list_of(1) == expected(page, 1, session[1:]))
    browser.all("#clear")[0].click()
    browser.wait(lambda: not browser.items("#session"))


def test_a_session_of_the_log_shows_ranks_and_hits(browser: Browser, page: Page) -> None:
    browser.all("#session-id")[0].clear()
    browser.all("#session-id")[0].send_keys("u148")
    browser.all("#load")[0].click()
    items = [item for session, item, _ in random_rows(150, 14) if session == "u148"]
    browser.wait(lambda: browser.texts("#totals") != [""])
    assert browser.items("#session") == items[:1]
    assert browser.texts("#session-about") == ["It begins after the training."]
    for number in range(len(RUNS)):
        cells = browser.texts(f"#positions-body tr td:nth-child({number + 3})")
        lists = [expected(page, number, items[:place]) for place in range(1, len(items))]
        ranks = [own.index(item) + 1 for own, item in zip(lists, items[1:], strict=True)]
        assert cells[0] == "first"
        assert all(int(cell) >= rank for cell, rank in zip(cells[1:], ranks, strict=True))  # ties count against
        mrr = sum(1 / int(cell) for cell in cells[1:]) / len(ranks)
        assert f"{RUNS[number]}: {len(ranks)} of {len(ranks)}" in browser.texts("#totals")[0]
        assert f"{mrr:.4f}" in browser.texts("#totals")[0]
    assert browser.items("[data-model='0'] .target") == [items[1]]
    browser.all("#next")[0].click()
    browser.wait(lambda: browser.list_of(0) == expected(page, 0, items[:2]))
    assert browser.items("#session") == items[:2]
    browser.driver.find_element("css selector", "[data-model='0'] .target button").click()  # the one that came next
    browser.wait(lambda: browser.items("#session") == items[:3])
    assert browser.texts("#positions-body tr.now td:first-child") == ["3"]


def test_a_new_model_and_what_fails_are_told(browser: Browser, page: Page) -> None:
    browser.all("#session-id")[0].clear()
    browser.all("#session-id")[0].send_keys("nobody")
    browser.all("#load")[0].click()
    browser.wait(lambda: "no such session" in browser.texts("#error")[0])
    first, second = page.services
    first.reload(second.checkpoint)
    browser.all("#clear")[0].click()
    browser.wait(lambda: browser.texts("#about")[0].count("Markov") == 2)
    assert not browser.texts("#error")[0]
