"""The pages in Chromium, with their script; the fixture `page` fails a test on any error in the console."""

import pytest
import requests

from tests.pages.conftest import PASSWORD, USERNAME, sign_in

PAGES = ("", "/config", "/keys", "/history", "/audit", "/account", "/welcome/anthropic", "/welcome/key", "/nowhere")
SAVED = ".notice.success"


def save(page):
    page.click(".save button")
    page.wait_for_selector(SAVED)


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_no_page_is_wider_than_a_small_phone(admin, site):
    admin.goto(f"{site}/admin/config")
    admin.fill("#c0-name", "a-name-without-a-single-space-to-break-at-" * 3)
    save(admin)
    admin.set_viewport_size({"width": 360, "height": 700})
    for path in [*(f"/admin{path}" for path in PAGES), "/docs"]:
        admin.goto(site + path)
        admin.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
        assert overflow(admin) == 0, path
    admin.goto(f"{site}/admin/keys")
    admin.fill("#name", "narrow")
    admin.click("text=Make the key")
    admin.wait_for_selector("text=I have copied it")
    admin.wait_for_load_state()
    assert overflow(admin) == 0
    admin.goto(f"{site}/admin/history")
    admin.click("a >> text=Undo to here")
    admin.wait_for_selector("h1 >> text=Undo to")
    assert overflow(admin) == 0
    admin.click("text=Bring them back")
    admin.wait_for_selector(SAVED)


def test_one_can_sign_in_with_the_keyboard_alone(page, site):
    page.goto(f"{site}/admin/keys")
    assert page.url == f"{site}/admin/login?next=/admin/keys"
    page.wait_for_load_state()
    page.wait_for_selector("#username:focus")
    page.keyboard.type(USERNAME)
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The user name or the password is wrong.")
    page.wait_for_load_state()  # what is typed into a page that is still loading may be lost
    page.wait_for_selector("#password:focus")
    page.keyboard.type(PASSWORD)
    assert page.input_value("#password") == PASSWORD
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site}/admin/keys")
    page.click("text=Sign out")
    page.wait_for_selector("text=You are signed out.")


def test_a_key_is_changed_and_verified_before_it_is_saved(admin, site):
    admin.goto(f"{site}/admin/config")
    admin.fill("#c0-key", "sk-ant-invalid-key")
    admin.click("[value='verify 0']")
    admin.wait_for_selector(".result.bad >> text=refused the key")
    assert admin.input_value("#c0-key") == "sk-ant-invalid-key"
    admin.fill("#c0-key", "sk-ant-api03-another-key-of-the-tests-zyxw")
    admin.click("[value='verify 0']")
    admin.wait_for_selector(".result.good >> text=It works")
    save(admin)
    assert "sk-ant-…zyxw" in admin.text_content("#c0-key-help")
    admin.goto(f"{site}/admin")
    admin.click("[data-verify]")
    admin.wait_for_selector(".result.good >> text=It works")
    admin.goto(f"{site}/admin/history")
    admin.click("a >> text=Undo to here")
    admin.wait_for_selector("h1 >> text=Undo to")
    assert overflow(admin) == 0
    admin.click("text=Bring them back")
    admin.wait_for_selector(SAVED)


def test_a_connection_is_added_and_removed_in_the_page(admin, site):
    admin.goto(f"{site}/admin/config")
    admin.click("text=Add a connection")
    added = admin.locator("fieldset.connection").nth(1)
    name = "<script>alert(1)</script>"
    added.locator("[name$='-name']").fill(name)
    added.locator("[name$='-key']").fill("sk-ant-api03-a-second-key")
    assert admin.is_visible("[data-changed]")
    save(admin)
    assert admin.locator("legend").nth(1).text_content() == name
    admin.goto(f"{site}/admin")
    assert admin.locator("h3", has_text=name).count() == 1
    admin.goto(f"{site}/admin/config")
    admin.locator("[data-remove]").nth(1).click()
    save(admin)
    assert admin.locator("fieldset.connection").count() == 1


def test_a_wrong_field_is_opened_focused_and_keeps_its_text(admin, site):
    admin.goto(f"{site}/admin/config")
    admin.click("fieldset.connection summary")
    admin.fill("#c0-weight", "heavy")
    admin.click(".save button")
    admin.wait_for_selector("[aria-invalid]")
    assert admin.input_value("#c0-weight") == "heavy"
    assert admin.evaluate("document.activeElement.id") == "c0-weight"
    assert admin.text_content("#c0-weight-error") == "Write a number above 0."


def test_of_two_admins_the_second_is_told_and_loses_nothing(admin, context, site):
    other = context.new_page()
    for tab in (admin, other):
        tab.goto(f"{site}/admin/config")
    other.fill("#IDLE_TIMEOUT_S", "123")
    save(other)
    admin.fill("#REQUEST_DEADLINE_S", "456")
    admin.click(".save button")
    admin.wait_for_selector("text=Somebody else saved meanwhile")
    assert admin.input_value("#IDLE_TIMEOUT_S") == "123"
    assert admin.input_value("#REQUEST_DEADLINE_S") == "456"
    save(admin)
    assert admin.input_value("#REQUEST_DEADLINE_S") == "456"


@pytest.mark.parametrize("with_script", [True, False])
def test_a_client_key_works_until_it_is_revoked(browser, site, with_script):
    context = browser.new_context(java_script_enabled=with_script)
    page = context.new_page()
    sign_in(page, site)
    page.goto(f"{site}/admin/keys")
    page.fill("#name", f"robot {with_script}")
    page.click("text=Make the key")
    headers = {"authorization": f"Bearer {page.text_content('#key')}"}
    assert requests.get(f"{site}/v1/models", headers=headers, timeout=30).status_code == 200
    page.click("text=I have copied it")
    page.locator("tr", has_text=f"robot {with_script}").locator("a").click()
    page.click("text=Revoke it")
    page.wait_for_selector("text=it stops working everywhere")
    assert requests.get(f"{site}/v1/models", headers=headers, timeout=30).status_code == 401
    context.close()
