"""The experts' page by its requests: what is shown and hidden, who may come in, what is refused, and nothing lost."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
pytest.importorskip("httpx2", reason="the tests of the page need httpx2")

from fastapi.testclient import TestClient
from helpers import call_cli
from pages import NAMES, digits_state, reviews_state, served

from labelwright.errors import DataError, LedgerError
from labelwright.ledger import History
from labelwright.ledger.people import People
from labelwright.ledger.queue import ExpertQueue
from labelwright.settings import StateFolder
from labelwright.web.app import create_app
from labelwright.web.desk import Desk
from labelwright.web.guard import FORM, LOOPBACK, Rate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_state(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    """A copy of its own for each test."""
    return Path(shutil.copytree(made, tmp_path / "state"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reviews_state(tmp_path_factory.mktemp("reviews"))


def visit(state: Path, *, host: str = "localhost", who: str = "ann", **options) -> TestClient:
    """A browser of the page in this process; ``who`` by cookie, as the page sets it."""
    wanted = {name: options.pop(name) for name in ("blind", "gold", "lease") if name in options}
    app = create_app(Desk(StateFolder(state), **wanted), **options)
    return TestClient(
        app, base_url=f"http://{host}", cookies={"labelwright_name": who} if who else None, follow_redirects=False
    )


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, f"the page has no field {name}"
    return found.group(1)


def fields(page: str, **more: str) -> dict[str, str]:
    return {name: field(page, name) for name in ("csrf", "key", "shown")} | more


def heard(state: Path) -> dict[int, tuple[str, int]]:
    """What the loop would hear: key -> (who, class)."""
    history = History(f"sqlite:///{state}/ledger.db")
    queue = ExpertQueue(history.engine, classes=len(history.classes))
    from labelwright.answers import all_said

    said = {word.key: (word.expert, history.classes.index(word.label)) for word in all_said(history) if word.label}
    assert queue.waiting() >= 0
    return said


# ------------------------------------------------------------ what is shown


def test_a_question_shows_the_row_its_label_the_suggestion_why_and_examples(state):
    page = visit(state).get("/").text
    assert "What is row" in page and "It came as" in page and "by the models" in page and "Trusted examples of" in page
    assert page.count('data-key="') >= 15 and "waiting</span>" in page
    assert all(f"<span>{name}</span>" in page for name in NAMES)


def test_the_true_label_is_on_no_page(state, texts):
    for folder in (state, texts):
        client = visit(folder)
        for path in ("/", "/grid", "/corrections", "/disputes", "/board"):
            page = client.get(path)
            assert page.status_code == 200 and ">true<" not in page.text, path
    number = re.search(r"/picture/(\d+)/(\d+)", visit(state).get("/").text)
    assert number
    client = visit(state)
    assert client.get(f"/picture/{number.group(1)}/0").headers["content-type"] == "image/png"
    assert [client.get(f"/picture/{number.group(1)}/{column}").status_code for column in (1, 2, 3, 99)] == [404] * 4
    assert client.get("/picture/99999999999/0").status_code == 404


def test_texts_numbers_and_categories_are_shown_and_odd_values_marked(texts, tmp_path):
    page = visit(texts).get("/").text
    assert "price" in page and "review" in page and 'class="other"' in page
    desk = Desk(StateFolder(texts))
    desk.examples._renewed()
    assert "98 of 100" in desk.examples.odd("price", 1e6) and desk.examples.odd("price", 25.0) == ""
    assert "rare" in desk.examples.odd("city", "Atlantis") and desk.examples.odd("city", None) == ""


def test_examples_are_of_their_class_and_never_the_row_itself(state):
    desk = Desk(StateFolder(state))
    history, question = desk.history, desk.question("ann")
    assert question is not None and question.examples
    records = {int(k): int(label) for _, r in history.all_records() for k, label in zip(r.keys, r.label, strict=True)}
    for label, group in question.examples:
        assert len(group) == 4 and all(
            history.name(records[e.key]) == label and e.key != question.item.key for e in group
        )


def test_the_first_page_is_small_and_needs_nothing_from_elsewhere(state):
    client = visit(state)
    page = client.get("/")
    parts = [client.get(path) for path in re.findall(r'(?:href|src|scripts)="(/static/[^"]+)"', page.text)]
    assert len(parts) == 1 and all(part.status_code == 200 for part in parts)
    assert len(page.content) + sum(len(part.content) for part in parts) < 100_000
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page.text)


# ------------------------------------------------------------ answers


def test_an_answer_without_javascript_leads_to_the_next_question(state):
    client = visit(state)
    page = client.get("/").text
    first = field(page, "key")
    done = client.post("/answer", data=fields(page, say="=3"))
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert heard(state) == {int(first): ("ann", 3)}
    page = client.get("/").text
    assert field(page, "key") != first and "<b>1</b> answered by you" in page
    client.post("/answer", data=fields(page, name="seven"))  # the box, which works without JavaScript too
    assert [label for _, label in heard(state).values()] == [3, NAMES_IN_ORDER.index("seven")]


NAMES_IN_ORDER = sorted(NAMES)


def test_htmx_gets_the_core_of_the_next_question_alone(state):
    client = visit(state)
    page = client.get("/").text
    core = client.post("/answer", data=fields(page, say="unsure"), headers={"hx-request": "true"})
    assert core.status_code == 200 and "<html" not in core.text and 'data-message="Saved: unsure."' in core.text


def test_undo_brings_the_row_back(state):
    client = visit(state)
    page = client.get("/").text
    client.post("/answer", data=fields(page, say="=1"))
    client.post("/undo", data={"csrf": field(page, "csrf")})
    assert heard(state) == {} and field(client.get("/").text, "key") == field(page, "key")
    assert (
        "nothing to take back"
        in client.post("/undo", data={"csrf": field(page, "csrf")}, headers={"hx-request": "true"}).text
    )


def test_two_people_get_different_rows_and_a_late_answer_changes_nothing(state):
    ann, bob = visit(state, lease=0.05), visit(state, who="bob", lease=600.0)
    page = ann.get("/").text
    import time

    time.sleep(0.1)  # ann's lease runs out
    other = bob.get("/").text
    assert field(other, "key") == field(page, "key")
    bob.post("/answer", data=fields(other, say="=2"))
    late = ann.post("/answer", data=fields(page, say="=4"), headers={"hx-request": "true"})
    assert "Somebody else had answered" in late.text
    assert heard(state) == {int(field(page, "key")): ("bob", 2)}


def test_what_people_say_reaches_the_models_with_who_and_when(state):
    client = visit(state)
    for _ in range(3):
        client.post("/answer", data=fields(client.get("/").text, say="=0"))
    keys = set(heard(state))
    data = state.parent / "digits.parquet"
    shutil.copy(DIGITS[0] / "digits.parquet", data)
    options = ("--label", "label", "--truth", "true", "--batch-size", 100, "--clean-rows", 100, "--budget", 15)
    models = ("--quality", "linear", "--classifier", "linear")
    done = call_cli("run", data, *options, *models, "--state", state)
    assert done.returncode == 0, done.stderr
    history = History(f"sqlite:///{state}/ledger.db")
    answered = {q["key"]: (q["expert"], q["answer"]) for q in history.questions() if q["answer"] is not None}
    assert answered == dict.fromkeys(keys, ("ann", 0))
    told = history.story(history.id_of(min(keys)) or "")["answers"][0]
    assert told["expert"] == "ann" and told["at"].startswith("20")
    assert (
        "the models have it"
        in client.post("/undo", data={"csrf": field(client.get("/").text, "csrf")}, headers={"hx-request": "true"}).text
    )


DIGITS: list[Path] = []


@pytest.fixture(autouse=True)
def _where(made: Path) -> None:
    DIGITS[:] = [made.parent]


def test_rows_that_were_erased_leave_the_queue(state):
    client = visit(state)
    page = client.get("/").text
    key = field(page, "key")
    history = History(f"sqlite:///{state}/ledger.db")
    assert call_cli("erase", history.id_of(int(key)), "--state", state).returncode == 0
    import labelwright.web.shelf as shelf

    before, shelf.STALE = shelf.STALE, 0.0
    try:
        assert field(client.get("/").text, "key") != key
        gone = client.post("/answer", data=fields(page, say="=1"), headers={"hx-request": "true"})
        assert gone.status_code == 400 and "erased" in gone.text
    finally:
        shelf.STALE = before


def test_the_grid_takes_many_answers_and_leaves_open_rows_open(state):
    client = visit(state)
    page = client.get("/grid").text
    rows = re.findall(r'name="(row-\d+)" value="(=\d+)"', page)
    first = {name: value for name, value in reversed(rows)}
    chosen = dict(list(first.items())[:5])
    left = {name: "" for name in list(first)[5:]}
    done = client.post("/grid", data={"csrf": field(page, "csrf"), **chosen, **left})
    assert done.headers["location"] == "/grid?done=5" and len(heard(state)) == 5
    assert "Saved 5 answers" in client.get("/grid?done=5").text


def test_corrections_are_taken_back_on_the_record(state):
    client = visit(state)
    page = client.get("/corrections").text
    rows = sorted(set(re.findall(r"row-(\d+)", page)))
    assert len(rows) >= 2, "the run corrected nothing: the test has no subject"
    done = client.post(
        "/corrections", data={"csrf": field(page, "csrf"), f"row-{rows[0]}": "given", f"row-{rows[1]}": "right"}
    )
    assert done.headers["location"] == "/corrections?done=2"
    history = History(f"sqlite:///{state}/ledger.db")
    assert history.reverted() == {int(rows[0])}
    assert history.story(history.id_of(int(rows[0])) or "")["verdicts"][-1]["decider"] == "revert by ann"
    assert f"row-{rows[0]}" not in client.get("/corrections").text
    assert call_cli("verify", "--state", state).returncode == 0


def test_while_a_run_is_at_work_it_carries_the_corrections_out_itself(state):
    client, busy = visit(state), StateFolder(state)
    page = client.get("/corrections").text
    row = re.search(r"row-(\d+)", page)
    assert row
    busy.claim()
    done = client.post("/corrections", data={"csrf": field(page, "csrf"), f"row-{row.group(1)}": "drop"})
    busy.release()
    assert done.headers["location"].endswith("later=1") and History(f"sqlite:///{state}/ledger.db").reverted() == set()


def test_blind_people_see_no_suggestion(state):
    page = visit(state, blind=1.0).get("/").text
    assert "by the models" not in page and "Trusted examples" not in page and "not shown this time" in page
    assert "Nothing waits" in visit(state, blind=1.0, who="bob").get("/grid").text


def test_gold_rows_measure_people_and_reach_no_model(state):
    client = visit(state, gold=0.9)
    page = client.get("/").text
    history = History(f"sqlite:///{state}/ledger.db")
    owners = {
        int(k) for _, r in history.all_records() for k, who in zip(r.keys, r.decider, strict=True) if who == "owner"
    }
    for _ in range(12):
        client.post("/answer", data=fields(page, say="=0"))
        page = client.get("/").text
    from labelwright.answers import all_said
    from labelwright.ledger.queue_view import measured

    right, tested = measured(history.engine)["ann"]["gold"]
    assert 5 <= tested <= 12 and right < tested
    assert not {word.key for word in all_said(history)} & owners
    board = client.get("/board").text
    assert "rows that you vouch for are mixed in" in board and f"of {tested}" in board


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"say": "=99"}, 400, "no class"),
        ({"say": "=-1"}, 400, "no class"),
        ({"say": "maybe"}, 400, "no kind of answer"),
        ({"say": ""}, 400, "no kind of answer"),
        ({"name": "<script>alert(1)</script>"}, 400, "is no class"),
        ({"say": "=1", "key": "123456789"}, 400, "nobody asked about row"),
        ({"say": "=1", "key": "x"}, 400, "names no row"),
        ({"say": "=1", "csrf": "0" * 64}, 403, "too old or not yours"),
        ({"say": "=1", "csrf": ""}, 403, "too old or not yours"),
        ({"say": "x" * (2 * FORM)}, 413, "too much"),
    ],
)
def test_what_is_no_answer_is_refused_in_plain_words(state, more, status, words):
    client = visit(state)
    page = client.get("/").text
    for header in ({}, {"hx-request": "true"}):
        done = client.post("/answer", data=fields(page) | more, headers=header)
        assert done.status_code == status and words in done.text and "<script>alert" not in done.text
    assert heard(state) == {} and client.get("/").status_code == 200


def test_script_in_a_label_or_a_text_is_shown_as_text(tmp_path):
    import csv

    evil = "<script>alert('x')</script>"
    with (tmp_path / "evil.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for at in range(120):
            label = evil if (at % 2 == 0) != (at % 7 == 0) else '"><img src=x onerror=alert(1)>'
            writer.writerow(
                [f"{evil} {'even' if at % 2 == 0 else 'odd'} row {at} of a long and winding text {'word ' * 8}", label]
            )
    options = ("--label", "label", "--batch-size", 60, "--budget", 9, "--quality", "linear", "--classifier", "linear")
    assert call_cli("run", tmp_path / "evil.csv", *options, "--state", tmp_path / "s").returncode == 0
    client = visit(tmp_path / "s", who=evil)
    for path in ("/", "/grid", "/corrections", "/board", "/guidelines", "/disputes"):
        page = client.get(path).text
        assert "<script>alert" not in page and "<img src=x" not in page, path
    assert "&lt;script&gt;alert" in client.get("/").text
    csrf = field(client.get("/guidelines").text, "csrf")
    client.post("/guidelines", data={"csrf": csrf, "text-0": evil, "text-1": evil})
    import time

    time.sleep(2.1)
    assert "<script>alert" not in client.get("/").text and "&lt;script&gt;alert" in client.get("/").text


def test_a_form_from_another_site_and_a_strange_host_are_refused(state):
    client = visit(state)
    page = client.get("/").text
    done = client.post("/answer", data=fields(page, say="=1"), headers={"sec-fetch-site": "cross-site"})
    assert done.status_code == 403 and heard(state) == {}
    assert visit(state, host="evil.example").get("/").status_code == 421
    assert {visit(state, host=f"[{h}]" if ":" in h else h).get("/").status_code for h in LOOPBACK} == {200}


def test_every_response_says_what_browsers_may_do(state):
    client = visit(state)
    for path in ("/", "/board", "/static/page.js", "/nothing", "/api/next", "/label-studio/health"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy
            and "script-src 'self' 'sha256-" in policy
            and "frame-ancestors 'none'" in policy
        )
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert client.get("/").headers["cache-control"] == "no-store"


def test_the_style_and_the_script_that_stand_in_the_page_are_the_only_ones_allowed(state):
    def digest(text):
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    client = visit(state)
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    style = page.text.split("<style>")[1].split("</style>")[0]
    assert f"style-src 'sha256-{digest(style)}';" in policy and "max-width: 76rem" in style
    for path in ("/", "/grid", "/corrections", "/board", "/disputes", "/guidelines"):
        page = client.get(path)
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.S)
        policy = page.headers["content-security-policy"]
        assert len(scripts) == 1 and f"script-src 'self' 'sha256-{digest(scripts[0])}';" in policy, path


def test_the_scripts_are_kept_by_browsers_until_they_change(state):
    client = visit(state)
    place = re.search(r'scripts="(/static/page.js[?][0-9a-f]{12})"', client.get("/").text)
    assert place is not None
    scripts = client.get(place[1])
    assert "immutable" in scripts.headers["cache-control"] and scripts.headers["content-type"].startswith(
        "text/javascript"
    )
    assert "htmx:beforeRequest" in scripts.text and "allowEval" in scripts.text


def test_a_state_without_a_ledger_or_without_questions_for_people_is_one_sentence(tmp_path, state):
    with pytest.raises(LedgerError, match="run 'labelwright run' first"):
        Desk(StateFolder(tmp_path / "nothing"))
    (tmp_path / "other").mkdir()
    other = digits_state(tmp_path / "other", "--expert", "none", n=200)
    with pytest.raises(DataError, match="--expert people"):
        Desk(StateFolder(other))
    assert call_cli("serve", "--state", tmp_path / "nothing").returncode == 2
    beyond = call_cli("serve", "--state", state, "--host", "0.0.0.0")
    assert beyond.returncode == 2 and "--certificate" in beyond.stderr
    nobody = call_cli("serve", "--state", state, "--host", "0.0.0.0", "--behind-proxy")
    assert nobody.returncode == 2 and "experts add" in nobody.stderr


def test_a_disk_that_is_full_is_a_plain_message_and_nothing_is_lost(state):
    client = visit(state)
    page = client.get("/").text
    key = int(field(page, "key"))
    desk = client.app.state.desk
    with desk.history.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    from sqlalchemy import event

    def small(connection, record, proxy=None):
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(desk.history.engine, "checkout", small)
    assert client.post("/answer", data=fields(page, say="=3")).status_code == 303
    full = None
    for at in range(200):  # until the last page is used up
        told = {f"text-{n}": f"{at} " + "x" * 3900 for n in range(11)}
        full = client.post("/guidelines", data={"csrf": field(page, "csrf"), **told}, headers={"hx-request": "true"})
        if full.status_code != 303:
            break
    assert full is not None and full.status_code == 503 and "free some space" in full.text
    event.remove(desk.history.engine, "checkout", small)
    assert heard(state) == {key: ("ann", 3)}


# ------------------------------------------------------------ accounts


def test_nobody_sees_or_answers_without_a_token(state):
    people = People(f"sqlite:///{state}/ledger.db")
    token, lead = people.add("ann"), people.add("eve", lead=True)
    client = visit(state, host="labels.example", local=False, who="")
    for path in ("/", "/grid", "/corrections", "/board", "/disputes", "/guidelines"):
        assert (client.get(path).status_code, client.get(path).headers["location"]) == (303, "/login")
    for path in ("/picture/0/0", "/api/next", "/api/progress", "/label-studio/versions"):
        assert client.get(path).status_code == 401, path
    for path in (
        "/answer",
        "/undo",
        "/grid",
        "/corrections",
        "/disputes",
        "/guidelines",
        "/api/answer",
        "/label-studio/predict",
    ):
        assert client.post(path, data={"key": "0", "say": "=1"}).status_code in (401, 422), path
    client.cookies.set("labelwright_name", "ann")
    client.headers["x-expert"] = "ann"
    assert client.get("/api/next").status_code == 401  # a name is no token

    refused = client.post("/login", data={"token": "lw_" + "a" * 43})
    assert refused.status_code == 401 and "not known" in refused.text
    done = client.post("/login", data={"token": token})
    cookie = done.headers["set-cookie"]
    assert done.status_code == 303 and "HttpOnly" in cookie and "SameSite=strict" in cookie
    page = client.get("/").text
    assert "What is row" in page and ">ann<" in page
    assert client.get("/board").status_code == 403 and client.get("/guidelines").status_code == 403
    client.post("/answer", data=fields(page, say="=1"))
    assert [who for who, _ in heard(state).values()] == ["ann"]

    bearer = {"authorization": f"Bearer {lead}"}
    fresh = visit(state, host="labels.example", local=False, who="")
    assert (
        fresh.get("/api/next", headers=bearer).json()["item"]["id"]
        and fresh.get("/board", headers=bearer).status_code == 200
    )
    people.remove("eve")
    assert fresh.get("/api/next", headers=bearer).status_code == 401


def test_cookies_are_secure_beyond_loopback_and_tokens_are_hashed_at_rest(state):
    token = People(f"sqlite:///{state}/ledger.db").add("ann")
    client = visit(state, host="labels.example", local=False, secure=True, who="")
    done = client.post("/login", data={"token": token})
    assert "Secure" in done.headers["set-cookie"] and "strict-transport-security" in done.headers
    stored = b"".join(path.read_bytes() for path in state.iterdir() if path.is_file())
    assert token.encode() not in stored and token[3:].encode() not in stored


def test_wrong_tokens_and_storms_of_requests_are_slowed_down(state):
    token = People(f"sqlite:///{state}/ledger.db").add("ann")
    client = visit(state, host="labels.example", local=False, who="")
    codes = [client.post("/login", data={"token": f"lw_{at}"}).status_code for at in range(12)]
    assert codes[:10] == [401] * 10 and codes[10:] == [429, 429]
    assert client.post("/login", data={"token": token}).status_code == 303  # guessing locks nobody out
    client = visit(state)
    client.app.state.site.requests = Rate(5, 60.0)
    codes = [client.get("/api/progress", headers={"x-expert": "ann"}).status_code for _ in range(7)]
    assert codes[:5] == [200] * 5 and codes[-1] == 429
    assert client.get("/api/progress", headers={"x-expert": "bob"}).status_code == 200


def test_the_command_line_makes_lists_and_removes_experts(state):
    import json

    told = json.loads(call_cli("experts", "add", "ann", "--lead", "--state", state, "--json").stdout)
    assert told["lead"] and People(f"sqlite:///{state}/ledger.db").who(told["token"]).name == "ann"
    again = json.loads(call_cli("experts", "add", "ann", "--state", state, "--json").stdout)
    assert People(f"sqlite:///{state}/ledger.db").who(told["token"]) is None and not again["lead"]
    assert [p["name"] for p in json.loads(call_cli("experts", "list", "--state", state, "--json").stdout)] == ["ann"]
    assert call_cli("experts", "remove", "ann", "--state", state).returncode == 0
    gone = call_cli("experts", "remove", "ann", "--state", state)
    assert gone.returncode == 2 and "no expert" in gone.stderr
    assert call_cli("experts", "add", "a\nb", "--state", state).returncode == 2


# ------------------------------------------------------------ several people, leads


def test_a_lead_settles_what_people_disagree_about(tmp_path):
    state = digits_state(tmp_path, "--overlap", 2, n=200)
    ann, bob = visit(state), visit(state, who="bob")
    page = ann.get("/").text
    other = bob.get("/").text
    key = field(page, "key")
    assert field(other, "key") == key
    ann.post("/answer", data=fields(page, say="=1"))
    bob.post("/answer", data=fields(other, say="=2"))
    lead = visit(state, who="eve")
    page = lead.get("/disputes").text
    assert "<dt>ann</dt><dd>five</dd>" in page and "<dt>bob</dt><dd>four</dd>" in page
    assert lead.post("/disputes", data={"csrf": field(page, "csrf"), "key": key, "name": "nonsense"}).status_code == 400
    lead.post("/disputes", data={"csrf": field(page, "csrf"), "key": key, "name": "nine"})
    history = History(f"sqlite:///{state}/ledger.db")
    queue = ExpertQueue(history.engine, classes=10, overlap=2)
    import numpy as np

    from labelwright.types import Queries, Rows

    asked = Queries(
        Rows(np.zeros((1, 1)), np.zeros(1, int), np.array([int(key)])), np.ones(1), np.ones(1, int), np.ones(1)
    )
    told = list(queue.collect(asked))
    assert [(a.label, a.expert, a.cost) for a in told] == [(history.classes.index("nine"), "ann, bob, eve (lead)", 2.0)]


def test_guidelines_are_written_by_the_owner_and_stand_on_the_page(state):
    client = visit(state)
    page = client.get("/guidelines").text
    done = client.post(
        "/guidelines", data={"csrf": field(page, "csrf"), "text-0": "Look twice.", "text-3": "Has a loop."}
    )
    assert done.status_code == 303
    import time

    time.sleep(2.1)
    assert "Look twice." in client.get("/").text and "Has a loop." in client.get("/guidelines").text
    long = client.post("/guidelines", data={"csrf": field(page, "csrf"), "text-0": "x" * 5000})
    assert long.status_code == 400 and "4000" in long.text


# ------------------------------------------------------------ the API and a kill


def test_scripts_ask_and_answer_by_the_api(state):
    client, ann = visit(state), {"x-expert": "ann"}
    assert client.get("/api/next").status_code == 403  # no header says who: a page elsewhere could have sent this
    item = client.get("/api/next", headers=ann).json()["item"]
    done = client.post(
        "/api/answer", headers=ann, json={"key": item["key"], "label": item["suggestion"], "seconds": 1.5}
    ).json()
    assert done["message"].startswith("Saved") and done["item"]["key"] != item["key"]
    assert client.post("/api/undo", headers=ann).json() == {"key": item["key"]}
    for bad in ({}, {"key": -1, "label": "one"}, {"key": 1, "label": "x" * 20_000}, {"key": "x"}):
        assert client.post("/api/answer", headers=ann, json=bad).status_code == 422
    assert client.post("/api/answer", headers=ann, json={"key": item["key"], "label": "nonsense"}).status_code == 400
    assert client.get("/api/progress", headers=ann).json()["waiting"] > 0


def test_a_kill_of_the_server_loses_no_acknowledged_answer(state):
    import httpx2 as httpx

    acknowledged = {}
    for _ in range(2):
        with served(state) as (url, process), httpx.Client(base_url=url, headers={"x-expert": "ann"}) as client:
            item = client.get("/api/next").json()["item"]
            for _ in range(8):
                done = client.post("/api/answer", json={"key": item["key"], "label": "seven"})
                acknowledged[item["key"]] = done.json()["message"]
                item = done.json()["item"]
            process.kill()
            process.wait()
    assert len(acknowledged) == 16 and set(acknowledged.values()) == {"Saved: seven."}
    seven = NAMES_IN_ORDER.index("seven")
    assert heard(state) == {key: ("ann", seven) for key in acknowledged}


def test_a_run_that_waits_takes_answers_in_batch_by_batch(tmp_path):
    import os
    import subprocess
    import sys
    import time

    from pages import write_digits

    write_digits(tmp_path / "digits.parquet", 350)
    state = tmp_path / "state"
    command = [
        "run",
        tmp_path / "digits.parquet",
        "--label",
        "label",
        "--batch-size",
        80,
        "--first-batch",
        150,
        "--budget",
        4,
    ]
    models = ["--quality", "linear", "--classifier", "linear", "--state", state, "--wait", 120]
    code = "from labelwright.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, [*command, *models])], env=environment, stdout=subprocess.DEVNULL
    )
    said = 0
    try:
        while run.poll() is None:
            if not (state / "ledger.db").exists():
                time.sleep(0.2)
                continue
            try:
                queue = ExpertQueue(f"sqlite:///{state}/ledger.db", classes=10)
                for item in queue.serve("ann", 10):
                    said += queue.say("ann", item.key, label=item.given) == "taken"
            except LedgerError:
                pass  # the ledger is being made
            time.sleep(0.1)
    finally:
        run.kill()
    assert run.returncode == 0 and said >= 8
    history = History(f"sqlite:///{state}/ledger.db")
    commits = [entry["body"]["answers"] for entry in history.entries("commit")]
    assert sum(commits) == said and commits[-1] > 0 and len([n for n in commits if n]) >= 2
    assert {q["expert"] for q in history.questions()} == {"ann"}


# ------------------------------------------------------------ what a second reading found


def test_a_look_at_a_batch_that_is_not_there_yet_forgets_nothing(state):
    from labelwright.types import KEY_SHIFT

    client, desk = visit(state), Desk(StateFolder(state))
    waiting = desk.queue.waiting()
    assert client.get(f"/picture/{9 << KEY_SHIFT}/0").status_code == 404
    shelf = client.app.state.desk.shelf
    assert 9 not in shelf._tables and shelf.id_of(9 << KEY_SHIFT) == str(9 << KEY_SHIFT) and 9 not in shelf._ids
    client.get("/")
    assert desk.queue.waiting() == waiting


def test_only_corrections_by_the_models_can_be_taken_back(state):
    client = visit(state)
    page = client.get("/").text
    key = field(page, "key")
    client.post("/answer", data=fields(page, say="=5"))
    data = state.parent / "digits.parquet"
    shutil.copy(DIGITS[0] / "digits.parquet", data)
    options = ("--label", "label", "--truth", "true", "--batch-size", 100, "--clean-rows", 100, "--budget", 15)
    assert (
        call_cli("run", data, *options, "--quality", "linear", "--classifier", "linear", "--state", state).returncode
        == 0
    )
    history = History(f"sqlite:///{state}/ledger.db")
    before = history.latest([int(key)])[int(key)]
    assert before["decider"] == "ann"
    done = visit(state, who="mal").post(
        "/corrections", data={"csrf": field(visit(state, who="mal").get("/").text, "csrf"), f"row-{key}": "given"}
    )
    assert done.headers["location"] == "/corrections?done=0"
    assert history.latest([int(key)])[int(key)] == before


def test_the_grid_saves_the_rest_when_some_rows_are_gone_or_late(state):
    client, other = visit(state), Desk(StateFolder(state))
    page = client.get("/grid").text
    rows = list(dict(re.findall(r'name="(row-(\d+))" value="=', page)).values())
    other.queue.withdraw([int(rows[3])])
    other.queue.say("bob", int(rows[5]), label=2)
    done = client.post("/grid", data={"csrf": field(page, "csrf"), **{f"row-{key}": "=1" for key in rows}})
    assert done.headers["location"] == f"/grid?done={len(rows) - 2}&late=1&gone=1"
    assert len(heard(state)) == len(rows) - 1 and "1 came late" in client.get(done.headers["location"]).text


def test_gold_rows_look_like_others(state):
    client = visit(state, gold=0.9)
    desk = client.app.state.desk
    gold = desk.queue.gold_keys()
    assert len(gold) == 60
    for count in range(1, 6):
        page = client.get("/").text
        assert not {e.key for _, group in desk.shown(desk.queue.serve("ann")[0]).examples for e in group} & gold
        client.post("/answer", data=fields(page, say="=0"))
        assert f"<b>{count}</b> answered by you" in client.get("/").text


def test_erasing_a_row_erases_what_was_said_of_it(state):
    from labelwright.answers import all_said

    client = visit(state)
    page = client.get("/").text
    client.post("/answer", data=fields(page, say="=0"))
    history = History(f"sqlite:///{state}/ledger.db")
    assert call_cli("erase", history.id_of(int(field(page, "key"))), "--state", state).returncode == 0
    assert all_said(history) == [] and call_cli("verify", "--state", state).returncode == 0


def test_a_state_folder_is_claimed_once_in_a_process_too(state):
    from labelwright.errors import BusyError

    place = StateFolder(state)
    place.claim()
    with pytest.raises(BusyError, match="already"):
        place.claim()
    with pytest.raises(BusyError, match="another labelwright"):
        StateFolder(state).claim()
    place.release()
    place.claim()
    place.release()


BENT = [
    ("POST", "/answer", {"data": {"key": "9" * 19, "say": "=1"}}),
    ("POST", "/answer", {"data": {"key": "\u0661", "say": "=1"}}),
    ("POST", "/answer", {"data": {"key": "1", "say": "=" + "9" * 30}}),
    ("POST", "/answer", {"data": {"key": "1", "say": "~\x00"}}),
    ("POST", "/grid", {"data": {"row-" + "9" * 19: "=1"}}),
    ("POST", "/corrections", {"data": {"row-" + "9" * 19: "given"}}),
    ("POST", "/corrections", {"data": {"row-1": "maybe"}}),
    ("POST", "/disputes", {"data": {"key": "9" * 19, "name": "one"}}),
    ("POST", "/guidelines", {"data": {"text-" + "9" * 4000: "x"}}),
    ("POST", "/name", {"data": {"name": "a\nb"}}),
    ("GET", "/picture/" + "9" * 40 + "/0", {}),
    ("GET", "/picture/0/" + "9" * 40, {}),
    ("GET", "/grid?done=\u0661&late=" + "9" * 50, {}),
    ("POST", "/api/answer", {"content": b'{"key": NaN}', "headers": {"content-type": "application/json"}}),
    (
        "POST",
        "/api/answer",
        {"content": b'{"key": 1e400, "seconds": Infinity}', "headers": {"content-type": "application/json"}},
    ),
    (
        "POST",
        "/api/answer",
        {"content": b'{"key": 1, "label": "\\ud800"}', "headers": {"content-type": "application/json"}},
    ),
    ("POST", "/api/answer", {"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}),
    ("GET", "/api/next", {"headers": {"authorization": "Basic \u00e9".encode("latin-1")}}),
    ("GET", "/", {"headers": {"cookie": "labelwright_name=%ff%00; labelwright_token=\u00e9".encode("latin-1")}}),
    ("POST", "/label-studio/predict", {"json": {"tasks": [{"data": {"image": "data:image/png;base64,\u00e9"}}]}}),
    ("POST", "/label-studio/predict", {"json": {"tasks": [{"data": {"labelwright_key": 2**70}}]}}),
]


@pytest.mark.parametrize("local", [True, False])
def test_no_bent_request_makes_an_error_of_ours(state, local):
    app = create_app(Desk(StateFolder(state)), local=local)
    token = People(f"sqlite:///{state}/ledger.db").add("ann", lead=True)
    for who in ({}, {"labelwright_token": token}):
        client = TestClient(
            app, base_url="http://localhost", cookies=who, raise_server_exceptions=False, follow_redirects=False
        )
        page = client.get("/")
        csrf = field(page.text, "csrf") if page.status_code == 200 else ""
        for method, path, how in BENT:
            more = {"data": {"csrf": csrf, **how["data"]}} if "data" in how else {}
            for headers in ({}, {"hx-request": "true"}):
                given = {**how, **more, "headers": {**headers, **how.get("headers", {})}}
                done = client.request(method, path, **given)
                assert done.status_code < 500, (method, path, done.text[:300])

    def long():
        for _ in range(200):
            yield b"x" * 1000

    done = client.post("/login", content=long(), headers={"content-type": "application/x-www-form-urlencoded"})
    assert done.status_code == 413 and client.get("/openapi.json").status_code == 404


def test_another_site_cannot_keep_the_models_busy(state):
    import time

    client = visit(state)
    body = {"tasks": [], "label_config": "<Choices " * 100_000}
    evil = {"sec-fetch-site": "cross-site", "origin": "http://evil.example"}
    assert client.post("/label-studio/predict", json=body, headers=evil).status_code == 403
    assert (
        client.post("/label-studio/predict", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    )
    start = time.perf_counter()
    assert client.post("/label-studio/predict", json={**body, "tasks": [{"data": {}}]}).status_code == 200
    from labelwright.web.suggest import interface

    assert interface("<Choices " * 111_000) == ("label", "row")
    assert time.perf_counter() - start < 20
