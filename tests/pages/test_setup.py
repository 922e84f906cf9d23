"""The first run."""

import requests

from app.storage import accounts
from tests.pages.conftest import PASSWORD, USERNAME, Form, Visitor, setup_link


def test_from_the_printed_link_to_a_chat(gateway, simulator, page):
    running = gateway(ANTHROPIC_API_BASE_URLS=simulator, GATEWAY_API_KEYS="", GRACEFUL_TIMEOUT="1")
    page.goto(running.url)
    assert page.url == f"{running.url}/setup"
    page.fill("#token", "not the token")
    for field in ("#password", "#again"):
        page.fill(field, PASSWORD)
    page.fill("#username", USERNAME)
    page.click("button.primary")
    assert "This is not the set-up token" in page.text_content("#token-error")
    assert page.input_value("#username") == USERNAME

    page.goto(setup_link(running.log))
    page.wait_for_selector("#token-taken")
    assert page.url == f"{running.url}/setup"
    assert page.is_hidden("#token")
    page.reload()
    assert page.is_visible("#token-taken")
    page.fill("#username", USERNAME)
    page.fill("#password", "short")
    page.fill("#again", "short")
    page.evaluate("document.querySelector('form.card').noValidate = true")
    page.click("button.primary")
    assert f"at least {accounts.SHORTEST_PASSWORD} characters" in page.text_content("#password-error")
    page.fill("#password", PASSWORD)
    page.fill("#again", PASSWORD)
    page.click("button.primary")

    page.wait_for_url("**/admin/welcome/anthropic")
    page.fill("#key", "sk-ant-invalid-key-of-the-tests")
    page.click("button.primary")
    page.wait_for_selector(".result.bad")
    assert "refused the key. Check that it was copied whole" in page.text_content(".result")
    assert page.input_value("#key") == "sk-ant-invalid-key-of-the-tests"
    assert page.is_visible("#anyway")
    page.fill("#key", "sk-ant-api03-the-right-key-of-the-tests")
    page.click("button.primary")
    page.wait_for_url("**/admin/welcome/key")
    page.goto(f"{running.url}/admin/welcome")
    assert page.url.endswith("/admin/welcome/key")
    page.click("button.primary")
    secret = page.text_content("#key")
    assert page.text_content("h1") == "You are ready"
    for lines in ("webui-url", "python", "javascript", "curl"):
        assert f"{running.url}/v1" in page.text_content(f"#{lines}")
    for lines in ("webui-key", "python", "javascript", "curl"):
        assert secret in page.text_content(f"#{lines}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("[data-copy=curl]")
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.text_content("#curl")

    chat = requests.post(
        f"{running.url}/v1/chat/completions",
        json={"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {secret}"},
        timeout=30,
    )
    assert chat.status_code == 200, chat.text
    assert chat.json()["choices"][0]["message"]["content"]
    page.goto(f"{running.url}/setup")
    assert page.text_content("h1") == "The set-up is done"
    page.click("a.button")
    page.wait_for_url(f"{running.url}/admin")


def test_only_the_token_opens_the_first_account(app):
    visitor = Visitor(app)
    answer = visitor.post("/setup", token="", username="eve", password=PASSWORD, again=PASSWORD)
    assert answer.status_code == 400
    assert set(Form(answer.text).errors) == {"token"}
    assert "dragoman setup-link</code> prints it again" in answer.text
    assert "It stands at the end of the link" not in answer.text
    assert not accounts.any_exists(app)


def test_a_token_once_given_is_not_asked_for_again_nor_shown(app):
    visitor = Visitor(app)
    token = accounts.setup_token(app.extensions["dragoman"].vault)
    answer = visitor.post("/setup", token=token, username="ann", password=PASSWORD, again="another one")
    assert Form(answer.text).errors == {"again": "The two passwords differ. Type the same one twice."}
    assert token not in answer.text
    assert "token" not in Form(answer.text).fields
    answer = visitor.post("/setup", username="ann", password=PASSWORD, again=PASSWORD)
    assert answer.location == "/admin/welcome"
    assert visitor.get("/admin").status_code == 200


def test_steps_can_be_skipped_and_say_what_is_missing(visitor):
    assert visitor.get("/admin/welcome").location == "/admin/welcome/anthropic"
    assert "No Anthropic key is in use yet" in visitor.get("/admin/welcome/key").text
    overview = visitor.get("/admin").text
    assert "No Anthropic key is configured yet" in overview
    assert "The Anthropic integration is off" in overview


def test_a_key_that_does_not_work_is_saved_only_when_asked_for(visitor, simulator):
    config = visitor.app.extensions["dragoman"].config
    page, key = "/admin/welcome/anthropic", "sk-ant-broke-key-of-the-tests"
    answer = visitor.post(page, key=key, url=simulator)
    assert "no credit left" in answer.text
    assert key not in answer.text
    assert config.load().connections == ()
    assert visitor.post(page, key=key, url=simulator, anyway="on").location == "/admin/welcome"
    assert [c.key for c in config.load().connections] == [key]
    assert config.snapshot.enabled


def test_a_new_key_is_shown_once(visitor):
    form = Form(visitor.get("/admin/welcome/key").text).fields
    first = visitor.send("/admin/welcome/key", form, name="mine")
    assert "sk-dgm-" in first.text
    assert visitor.send("/admin/welcome/key", form, name="mine").location == "/admin/keys"
    assert len(visitor.app.extensions["dragoman"].keys.list()) == 1
