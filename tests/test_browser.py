"""The experts' page in a real browser (Debian's chromium): keys alone, two people, undo, a late answer, no JavaScript, a phone,
and an accessibility check."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import CHROMIUM, NAMES, browser, digits_state, go, reviews_state, served

from labelwright.answers import all_said
from labelwright.ledger import History

pytest.importorskip("playwright", reason="browser tests need playwright")
pytest.importorskip("uvicorn", reason="the page needs the extra 'web'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="browser tests need Debian's package chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_state(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    state = Path(shutil.copytree(made, tmp_path / "state"))
    with served(state) as (url, _):
        yield url, state


def person(chromium: Any, url: str, name: str, **options: Any) -> Any:
    """A page of a person's own browser; errors of its scripts are kept in ``page.problems``."""
    context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    context.add_cookies([{"name": "labelwright_name", "value": name, "url": url}])
    page = context.new_page()
    page.problems, page.scripted = [], options.get("java_script_enabled", True)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
    go(page, url)
    return page


def said(state: Path) -> list[tuple[str, str, str | None]]:
    return [(word.expert, word.kind, word.label) for word in all_said(History(f"sqlite:///{state}/ledger.db"))]


def key_of(page: Any) -> str:
    return str(page.locator("form.say input[name=key]").input_value())


def press(page: Any, key: str) -> None:
    """Press a key and wait for the next question."""
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.keyboard.press(key)
    page.wait_for_function(
        "() => !document.getElementById('desk')?.dataset.busy && !document.querySelector('.htmx-request')"
    )


def message(page: Any) -> str:
    return str(page.locator("#message").inner_text())


def test_a_persons_flow_by_keyboard_alone(chromium, site):
    url, state = site
    page = person(chromium, url, "ann")
    suggestion = page.locator("button.accept span").inner_text()
    first = key_of(page)
    press(page, "Enter")
    assert message(page) == f"Saved: {suggestion}." and key_of(page) != first
    assert page.evaluate("document.activeElement.id") == "head"  # a screen reader goes on from the new question
    press(page, "4")
    press(page, "x")
    press(page, "n")
    press(page, "b")
    skipped = key_of(page)
    press(page, "s")
    assert key_of(page) != skipped
    assert [(kind, label) for _, kind, label in said(state)] == [
        ("answer", suggestion), ("answer", sorted(NAMES)[3]), ("unsure", None), ("none", None), ("broken", None), ("skip", None),
    ]  # fmt: skip
    press(page, "u")
    assert key_of(page) == skipped and "Taken back" in message(page)
    page.keyboard.press("?")
    assert page.locator("#help").get_attribute("open") is not None
    page.locator("#head").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "accept"
    assert page.problems == []


def test_two_people_at_once_never_see_the_same_row(chromium, site):
    url, state = site
    ann, bob = person(chromium, url, "ann"), person(chromium, url, "bob")
    for _ in range(4):
        assert key_of(ann) != key_of(bob)
        press(ann, "1")
        press(bob, "2")
    assert sorted(who for who, _, _ in said(state)) == ["ann"] * 4 + ["bob"] * 4
    assert len({word.key for word in all_said(History(f"sqlite:///{state}/ledger.db"))}) == 8


def test_a_late_answer_is_told_so(chromium, made, tmp_path):
    state = Path(shutil.copytree(made, tmp_path / "state"))
    with served(state, "--lease", 1) as (url, _):
        ann = person(chromium, url, "ann")
        time.sleep(1.2)
        bob = person(chromium, url, "bob")
        assert key_of(bob) == key_of(ann)
        press(bob, "2")
        press(ann, "3")
        assert "Somebody else had answered" in message(ann)
        assert [(who, kind) for who, kind, _ in said(state)] == [("bob", "answer")]


def test_without_javascript_it_works_by_buttons(chromium, site):
    url, state = site
    page = person(chromium, url, "ann", java_script_enabled=False)
    first = key_of(page)
    page.locator("button.accept").click()
    assert key_of(page) != first
    page.get_by_role("button", name="Undo").click()
    assert key_of(page) == first and said(state) == []
    go(page, f"{url}/grid")
    page.locator(".grid input[type=radio]").first.check()
    page.get_by_role("button", name="Save").click()
    assert "Saved 1 answer" in page.locator("#message").inner_text()
    assert len(said(state)) == 1


def test_when_the_server_is_down_the_page_says_so_and_the_same_key_saves_later(chromium, made, tmp_path):
    state = Path(shutil.copytree(made, tmp_path / "state"))
    with served(state) as (url, process):
        page = person(chromium, url, "ann")
        first = key_of(page)
        process.kill()
        process.wait()
        page.keyboard.press("1")
        page.wait_for_function("() => document.getElementById('message').textContent.includes('not saved')")
        with served(state, port=int(url.rpartition(":")[2])):
            press(page, "1")
            assert key_of(page) != first and len(said(state)) == 1


def test_after_an_error_the_page_goes_on(chromium, site):
    from labelwright.ledger.queue import ExpertQueue

    url, state = site
    page = person(chromium, url, "ann")
    gone = key_of(page)
    ExpertQueue(f"sqlite:///{state}/ledger.db", classes=10).withdraw([int(gone)])
    press(page, "Enter")
    assert "nobody asked about row" in message(page) and key_of(page) != gone
    press(page, "2")
    assert message(page).startswith("Saved") and len(said(state)) == 1
    page.evaluate("document.querySelector('form.say input[name=csrf]').value = 'old'")
    press(page, "3")
    assert "too old" in message(page) and len(said(state)) == 1


def test_many_classes_are_found_by_typing(chromium, tmp_path):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from helpers import call_cli

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 12)
    X = rng.normal(size=(480, 6)) + 3 * np.eye(40, 6)[y] + 0.5 * y[:, None] / 40
    label = np.where(rng.random(480) < 0.2, rng.permutation(y), y)
    table = pa.table({**{f"f{at}": X[:, at] for at in range(6)}, "label": [f"kind {c:02d}" for c in label]})
    pq.write_table(table.take(rng.permutation(480)), tmp_path / "many.parquet")
    options = (
        "--label",
        "label",
        "--batch-size",
        240,
        "--clean-rows",
        240,
        "--budget",
        9,
        "--quality",
        "linear",
        "--classifier",
        "linear",
    )
    classes = ",".join(f"kind {c:02d}" for c in range(40))
    done = call_cli("run", tmp_path / "many.parquet", *options, "--classes", classes, "--state", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    with served(tmp_path / "s") as (url, _):
        page = person(chromium, url, "ann")
        page.keyboard.press("/")
        page.keyboard.type("kind 37")
        press(page, "Enter")
        assert said(tmp_path / "s") == [("ann", "answer", "kind 37")]


def test_on_a_phone_nothing_is_wider_than_the_screen(chromium, site, tmp_path):
    url, _ = site
    page = person(chromium, url, "ann", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for path in ("/", "/grid", "/corrections", "/board", "/guidelines"):
        go(page, url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    go(page, url)
    assert page.locator("button.accept").bounding_box()["height"] >= 44
    page.locator("button.accept").tap()
    page.wait_for_function("() => document.getElementById('message').textContent.startsWith('Saved')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_check_finds_nothing_serious(chromium, site, tmp_path, scheme):
    from axe_playwright_python.sync_playwright import Axe

    url, _ = site
    (tmp_path / "texts").mkdir()
    texts = reviews_state(tmp_path / "texts") if scheme == "light" else None
    found = []
    with served(texts) if texts else served(site[1]) as (other, _):
        for at in (url, other) if texts else (url,):
            page = person(chromium, at, "ann", color_scheme=scheme, bypass_csp=True)
            for path in ("/", "/grid", "/corrections", "/board", "/disputes", "/guidelines"):
                go(page, at + path)
                page.wait_for_load_state("networkidle")
                for problem in Axe().run(page).response["violations"]:
                    if problem["impact"] in ("serious", "critical"):
                        found.append((at, path, problem["id"], [node["html"][:120] for node in problem["nodes"][:2]]))
    assert found == []


def test_nothing_is_asked_from_another_host_and_the_first_paint_is_quick(chromium, site):
    url, _ = site
    page = person(chromium, url, "ann")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_function("() => window.htmx !== undefined")
    assert asked and all(address.startswith(url) for address in asked)
    assert page.evaluate("performance.getEntriesByName('first-contentful-paint').length") == 1
