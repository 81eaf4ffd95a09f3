"""Label Studio's format out and in, CSV and Parquet, and the endpoint that gives Label Studio our suggestions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import call_cli
from pages import NAMES, digits_state, reviews_state

from labelwright.answers import all_said, give_out, take_in
from labelwright.errors import DataError
from labelwright.interchange import KEY, Said, said_in
from labelwright.ledger import History
from labelwright.ledger.queue import ExpertQueue
from labelwright.settings import StateFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_state(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "state"))


def history_of(state: Path) -> History:
    return History(f"sqlite:///{state}/ledger.db")


def tasks_of(state: Path) -> list[dict]:
    assert call_cli("questions", "--state", state, "--output", state / "tasks.json").returncode == 0
    return json.loads((state / "tasks.json").read_text())


def test_questions_are_label_studio_tasks_with_predictions_and_an_interface(state):
    tasks, history = tasks_of(state), history_of(state)
    asked = {q["key"]: q for q in history.questions()}
    assert len(tasks) == len(asked) > 10
    for task in tasks:
        question = asked[task["data"][KEY]]
        assert task["data"]["image"].startswith("data:image/png;base64,") and "true" not in task["data"]
        [told] = task["predictions"]
        assert told["score"] == pytest.approx(question["confidence"], abs=1e-4) and 0 <= told["score"] <= 1
        [result] = told["result"]
        assert result["type"] == "choices" and result["value"] == {"choices": [history.name(question["suggestion"])]}
    view = ElementTree.parse(state / "tasks.xml").getroot()
    choices = view.find("Choices")
    assert view.tag == "View" and choices is not None and view.find("Image").get("value") == "$image"
    assert (choices.get("name"), choices.get("toName")) == ("label", "row") == (result["from_name"], result["to_name"])
    assert [c.get("value") for c in choices] == list(history.classes)


def test_questions_in_parquet_can_be_answered_in_place(state):
    import pyarrow.parquet as pq

    path = state / "questions.parquet"
    assert call_cli("questions", "--state", state, "--output", path).returncode == 0
    table, tasks = pq.read_table(path), tasks_of(state)
    assert table["key"].to_pylist() == [task["data"][KEY] for task in tasks] and "true" not in table.column_names
    from labelwright.interchange import plain

    assert [plain(cell) for cell in table["image"].to_pylist()] == [task["data"]["image"] for task in tasks]
    assert set(table["label"].to_pylist()) == {None}
    at = table.column_names.index("label")
    import pyarrow as pa

    pq.write_table(table.set_column(at, "label", pa.array(["seven"] * 3 + [None] * (len(tasks) - 3))), path)
    assert take_in(StateFolder(state), path.read_bytes(), path)["taken"] == 3
    assert {word.label for word in all_said(history_of(state))} == {"seven"}


def annotated(task: dict, label: str, number: int) -> dict:
    """A task as Label Studio exports it when a person has answered (its documentation, "JSON" export)."""
    result = {"id": f"r{number}", "from_name": "label", "to_name": "row", "type": "choices", "origin": "manual"}
    annotation = {
        "id": 1000 + number,
        "completed_by": {"id": 1, "email": "ann@example.org", "first_name": "Ann", "last_name": ""},
        "result": [{**result, "value": {"choices": [label]}}],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-26T10:00:00.000000Z",
        "lead_time": 3.5,
        "task": number,
    }
    return {**task, "id": number, "annotations": [annotation], "drafts": [], "project": 1, "total_annotations": 1}


def test_what_people_said_in_label_studio_comes_back(state):
    tasks = tasks_of(state)
    done = [annotated(task, NAMES[at % 10], at) for at, task in enumerate(tasks[:6])]
    done[5]["annotations"][0] |= {"was_cancelled": True, "result": []}
    done.append({**tasks[6], "annotations": []})
    (state / "annotated.json").write_text(json.dumps(done))
    told = json.loads(call_cli("answers", "--take", state / "annotated.json", "--state", state, "--json").stdout)
    assert told == {"taken": 6, "again": 0, "late": 0, "refused": []}
    said = {word.key: (word.expert, word.kind, word.label, word.seconds) for word in all_said(history_of(state))}
    assert said == {
        task["data"][KEY]: ("ann@example.org", *(("skip", None) if at == 5 else ("answer", NAMES[at])), 3.5)
        for at, task in enumerate(tasks[:6])
    }
    again = json.loads(call_cli("answers", "--take", state / "annotated.json", "--state", state, "--json").stdout)
    assert (again["taken"], again["again"]) == (0, 6)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_a_round_trip_loses_nothing(made, state, tmp_path, suffix):
    queue, history = ExpertQueue(f"sqlite:///{state}/ledger.db", classes=10), history_of(state)
    said = []
    for at, kind in enumerate(["answer", "answer", "unsure", "none", "broken", "skip", "answer"]):
        [item] = queue.serve("Lee, Ann 'x'")
        label = at if kind == "answer" else None
        queue.say("Lee, Ann 'x'", item.key, label=label, kind=kind, seconds=None if at == 1 else 1.25 * at)
        said.append(
            (
                item.key,
                "Lee, Ann 'x'",
                kind,
                None if label is None else history.classes[label],
                None if at == 1 else 1.25 * at,
            )
        )
    out = tmp_path / f"answers{suffix}"
    assert give_out(StateFolder(state), out) == 7
    other = Path(shutil.copytree(made, tmp_path / "other"))
    assert take_in(StateFolder(other), out.read_bytes(), out)["taken"] == 7
    back = [(w.key, w.expert, w.kind, w.label, w.seconds) for w in all_said(history_of(other))]
    assert sorted(back) == sorted(said)
    second = tmp_path / f"again{suffix}"
    give_out(StateFolder(other), second)
    if suffix == ".json":
        first_tasks, second_tasks = (sorted(json.loads(p.read_text()), key=lambda t: t["id"]) for p in (out, second))
        assert first_tasks == second_tasks and "true" not in first_tasks[0]["data"]
        assert first_tasks[0]["predictions"][0]["score"] > 0 and first_tasks[0]["data"]["image"].startswith("data:")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.json", b"{}", "no list of tasks"),
        ("a.json", b'[{"data": {}}]', "has no 'labelwright_key'"),
        ("a.json", b"[1]", "has no 'labelwright_key'"),
        ("a.csv", b"id,label\n1,one\n", "expected 'key'"),
        ("a.csv", b"key,label\nx,one\n", "expected 'key'"),
        ("a.csv", b"", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.txt", b"", "expected .json"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(name, content, words):
    with pytest.raises(DataError, match=words):
        list(said_in(content, name))


def test_strange_annotations_are_passed_over_or_refused_one_by_one(state):
    key = history_of(state).questions()[0]["key"]
    strange = [
        None,
        {},
        {"result": None},
        {"result": [1, {"value": 3}, {"value": {"choices": []}}, {"value": {"choices": [1]}}]},
    ]
    odd = {"result": [{"value": {"choices": ["nonsense"]}}], "completed_by": None, "lead_time": "long"}
    fine = {"result": [{"value": {"choices": ["one"]}}], "completed_by": 7, "lead_time": float("nan")}
    tasks = [{"data": {KEY: key}, "annotations": [*strange, odd, fine]}, {"data": {KEY: 12345}, "annotations": [fine]}]
    told = take_in(StateFolder(state), json.dumps(tasks).encode(), Path("a.json"))
    assert told["taken"] == 1 and len(told["refused"]) == 2
    assert "no class" in told["refused"][0] and "nobody asked" in told["refused"][1]
    assert [word for word in all_said(history_of(state))] == [Said(key, "7", "answer", "one", None)]


def test_one_bad_value_in_a_table_stops_no_other(state):
    key, other = (q["key"] for q in history_of(state).questions()[:2])
    text = f"key,label,seconds\n{key},one,fast\n{other},two,inf\n{2**62},three,1\n-4,one,1\n"
    told = take_in(StateFolder(state), text.encode(), Path("a.csv"))
    assert told["taken"] == 2 and len(told["refused"]) == 1
    assert {word.seconds for word in all_said(history_of(state))} == {None}
    tasks = [
        {"data": {KEY: key}, "annotations": 5},
        {"data": {KEY: key}, "annotations": [{"result": 3, "lead_time": 10**400}]},
    ]
    assert take_in(StateFolder(state), json.dumps(tasks).encode(), Path("a.json"))["taken"] == 0
    for strange in (True, 2**70, -1):
        with pytest.raises(DataError, match="has no 'labelwright_key'"):
            list(said_in(json.dumps([{"data": {KEY: strange}}]).encode(), "a.json"))


# ------------------------------------------------------------ the machine-learning backend


@pytest.fixture
def backend(state):
    pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
    from fastapi.testclient import TestClient

    from labelwright.web.app import create_app
    from labelwright.web.desk import Desk

    return TestClient(create_app(Desk(StateFolder(state))), base_url="http://localhost", headers={"x-expert": "ls"})


def test_label_studio_gets_suggestions_live(backend, state):
    from labelwright.runner import reopened

    assert backend.get("/label-studio/health").json()["status"] == "UP"
    setup = {
        "project": "1.1690000000",
        "schema": "<View/>",
        "hostname": "http://ls",
        "access_token": "",
        "extra_params": {},
    }
    version = backend.post("/label-studio/setup", json=setup).json()["model_version"]
    assert version == "labelwright-2"
    config = '<View><Image name="pic" value="$image"/><Choices name="digit" toName="pic"><Choice value="one"/></Choices></View>'
    tasks = [{"id": at, **task} for at, task in enumerate(tasks_of(state)[:5])]
    body = {
        "tasks": tasks,
        "project": "1.1690000000",
        "label_config": config,
        "params": {"login": None, "context": None},
    }
    told = backend.post("/label-studio/predict", json=body).json()
    assert len(told["results"]) == 5
    run, history = reopened(StateFolder(state)), history_of(state)
    for task, result in zip(tasks, told["results"], strict=True):
        _, X = run.fetch(np.array([task["data"][KEY]]))
        proba = run.system.learners.classifier.proba(X)[0]
        assert (
            result["score"] == pytest.approx(proba.max() / proba.sum(), abs=1e-5) and result["model_version"] == version
        )
        [choice] = result["result"]
        assert choice["value"]["choices"] == [history.classes[proba.argmax()]]
        assert (choice["from_name"], choice["to_name"], choice["type"]) == ("digit", "pic", "choices")
    foreign = [{"data": {"image": task["data"]["image"]}} for task in tasks]  # the same pictures, as rows of its own
    again = backend.post("/label-studio/predict", json={"tasks": foreign, "label_config": config}).json()
    assert [r["result"] for r in again["results"]] == [r["result"] for r in told["results"]]
    for path in ("validate", "webhook"):
        assert backend.post(f"/label-studio/{path}", json={}).status_code in (200, 201)
    assert backend.get("/label-studio/versions").json() == {"versions": [version]}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"tasks": 3}',
        b'{"tasks": [3]}',
        b'{"tasks": [{}]}',
        b'{"tasks": [{"data": 1}]}',
        b"[" * 50_000,
    ],
)
def test_bent_requests_of_a_backend_are_refused(backend, body):
    done = backend.post("/label-studio/predict", content=body, headers={"content-type": "application/json"})
    assert done.status_code == 422 and "error" in done.json()


def test_a_row_with_strange_values_gets_a_suggestion_all_the_same(tmp_path):
    pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
    from fastapi.testclient import TestClient

    from labelwright.web.app import create_app
    from labelwright.web.desk import Desk

    state = reviews_state(tmp_path)
    client = TestClient(create_app(Desk(StateFolder(state))), base_url="http://localhost", headers={"x-expert": "ls"})
    rows = [
        {"review": "great and happy", "price": "20"},
        {"review": None, "price": "cheap", "city": 3},
        {"other": {}},
        {KEY: -5},
    ]
    told = client.post("/label-studio/predict", json={"tasks": [{"data": row} for row in rows]})
    assert told.status_code == 200 and len(told.json()["results"]) == 4
    assert told.json()["results"][0]["result"][0]["value"]["choices"] == ["good"]
    assert client.post("/label-studio/predict", json={"tasks": []}).json()["results"] == []
