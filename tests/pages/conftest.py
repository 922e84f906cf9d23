"""A browser, a gateway that several tests share, and a visitor without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from werkzeug.test import TestResponse

from app.storage import accounts
from tests.conftest import GatewayMaker, needs

USERNAME, PASSWORD = "ann", "correct horse battery"
UPSTREAM_KEY = "sk-ant-api03-a-key-of-the-tests-wxyz"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = needs("chromium", install="chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1200, "height": 800})
    made.set_default_timeout(10_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab whose test fails when a page writes an error to the console, which violations of the CSP are too."""
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        refused_form = (
            "the server responded with a status of 4" in message.text and "/static/" not in message.location["url"]
        )
        if message.type in ("error", "warning") and not refused_form:
            complaints.append(f"{message.location['url']}: {message.text}")

    made = context.new_page()
    made.on("console", listen)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    yield made
    assert complaints == []


@pytest.fixture(scope="module")
def site(simulator: str, module_gateway: GatewayMaker) -> str:
    """The URL of a running gateway with an admin, a connection and the integration on."""
    return module_gateway(
        ADMIN_USERNAME=USERNAME,
        ADMIN_PASSWORD=PASSWORD,
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_KEYS=UPSTREAM_KEY,
        GRACEFUL_TIMEOUT="1",  # Chromium keeps idle connections
    ).url


def sign_in(page: Page, site: str, password: str = PASSWORD) -> None:
    page.goto(f"{site}/admin/login")
    page.fill("#username", USERNAME)
    page.fill("#password", password)
    page.click("button.primary")


@pytest.fixture
def admin(page: Page, site: str) -> Page:
    """A tab in which an admin of `site` is signed in."""
    sign_in(page, site)
    page.wait_for_url(f"{site}/admin")
    return page


class Form(HTMLParser):
    """The fields of a page's forms as a browser would send them, without its buttons; and the errors it shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fields: dict[str, list[str]] = {}
        self.errors: dict[str, str] = {}
        self._area = self._select = self._error = ""
        self._aside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        name = given.get("name", "")
        self._aside = self._aside or tag == "template"
        if self._aside:
            return
        if tag == "input" and name and (given.get("type") != "checkbox" or "checked" in given):
            self._add(name, given.get("value", ""))
        elif tag == "textarea":
            self._area = name
            self._add(name, "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in given:
            self._add(self._select, given.get("value", ""))
        elif given.get("class") == "error" and given.get("id", "").endswith("-error"):
            self._error = given["id"].removesuffix("-error")

    def handle_endtag(self, tag: str) -> None:
        self._area = self._error = ""
        if tag == "template":
            self._aside = False

    def handle_data(self, data: str) -> None:
        if self._area:
            self.fields[self._area][-1] += data.removeprefix("\n").replace("\n", "\r\n")
        if self._error:
            self.errors[self._error] = self.errors.get(self._error, "") + data

    def _add(self, name: str, value: str) -> None:
        if name == "csrf_token":
            self.fields[name] = [value]
        else:
            self.fields.setdefault(name, []).append(value)


@dataclass
class Visitor:
    """Somebody at the pages without a browser, and so without script."""

    app: Flask
    client: FlaskClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    def get(self, path: str) -> TestResponse:
        return self.client.get(path, headers={"accept": "text/html"})

    def post(self, path: str, shown_at: str = "", **changed: Any) -> TestResponse:
        """Fills in the form shown at `shown_at` (else `path`) and sends it; None leaves a field out."""
        return self.send(path, Form(self.get(shown_at or path).text).fields, **changed)

    def send(self, path: str, fields: dict[str, list[str]], **changed: Any) -> TestResponse:
        data = {**fields, **{name.replace("__", "-"): value for name, value in changed.items()}}
        data = {name: value for name, value in data.items() if value is not None}
        return self.client.post(path, data=data, headers={"accept": "text/html"})

    def sign_in(self, password: str = PASSWORD) -> TestResponse:
        return self.post("/admin/login", username=USERNAME, password=password)


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    """Signed in."""
    accounts.create_first(app, USERNAME, PASSWORD)
    made = Visitor(app)
    assert made.sign_in().location == "/admin"
    return made


def setup_link(log: str) -> str:
    found = re.search(r"http\S+/setup#token=\S+", log)
    assert found, log
    return found[0]
