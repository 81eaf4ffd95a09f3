"""Suggestions for Label Studio: the requests of its machine-learning backends, answered by the run's models."""

import threading
import time
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from fastapi import Depends, FastAPI, HTTPException, Request

from labelwright.errors import LedgerError
from labelwright.interchange import CONTROL, KEY, MODEL, TARGET, bytes_of, prediction
from labelwright.runner import Run, reopened
from labelwright.tables.arrow import is_image
from labelwright.web.desk import Desk

FRESH = 10.0
TASKS = 1000
CONFIG = 1_000_000


class Suggestions:
    """The run's models, loaded when first asked for and again after later commits."""

    def __init__(self, desk: Desk):
        self.desk = desk
        self._run: Run | None = None
        self._version, self._looked = "", 0.0
        self._turn = threading.Lock()

    def version(self) -> str:
        """Names the models: the number of the newest batch they learned from."""
        snapshot = self.desk.history.entries("commit")
        return f"{MODEL}-{snapshot[-1]['number']}" if snapshot else f"{MODEL}-none"

    def of(self, tasks: list[dict[str, Any]], names: tuple[str, str]) -> list[dict[str, Any]]:
        """A prediction for each task. names: of the labelling interface's control and of what it belongs to."""
        with self._turn:
            run = self._models()
            X = self._features(run, tasks)
            proba = np.asarray(run.system.learners.classifier.proba(X), float)
        proba /= proba.sum(axis=1, keepdims=True)
        best = proba.argmax(axis=1)
        told = [
            prediction(run.ledger.classes[b], float(proba[i, b]), control=names[0], target=names[1])
            for i, b in enumerate(best)
        ]
        return [{**one, "model_version": self._version} for one in told]

    def _models(self) -> Run:
        if self._run is None or time.monotonic() - self._looked > FRESH:
            self._looked, version = time.monotonic(), self.version()
            if self._run is None or version != self._version:
                self._run, self._version = reopened(self.desk.state), version
        return self._run

    def _features(self, run: Run, tasks: list[dict[str, Any]]) -> Any:
        """(n, d): of rows that the ledger has, out of the ledger; of others, out of the task's own data."""
        tables = [self._row(task) for task in tasks]
        return np.concatenate([run.intake.encoder.transform(table) for table in tables])

    def _row(self, task: dict[str, Any]) -> pa.Table:
        data = task.get("data")
        if not isinstance(data, dict):
            raise HTTPException(422, "a task has no data; expected {'tasks': [{'data': {...}}]}")
        key = data.get(KEY)
        if isinstance(key, int) and 0 <= key < 2**63 and (row := self.desk.shelf.row(key)) is not None:
            return row
        fields = [field for field in self.desk.shelf.schema() if field.name not in self.desk.hidden]
        return pa.table({field.name: _cell(field, data.get(field.name)) for field in fields})


def _cell(field: pa.Field, value: Any) -> pa.Array:
    """One value in the column's type; what does not fit is missing."""
    if is_image(field.type) and isinstance(value, str):
        value = {"bytes": bytes_of(value), "path": None}
    try:
        return pa.array([value], field.type)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.nulls(1, field.type)


def interface(config: Any) -> tuple[str, str]:
    """(control, object) that a labelling interface (XML) names; our own names when it has none.

    >>> interface('<View><Image name="i" value="$image"/><Choices name="c" toName="i"/></View>')
    ('c', 'i')
    """
    import re

    if not isinstance(config, str) or len(config) > CONFIG:
        return CONTROL, TARGET
    tag = re.search(r"<Choices\b[^<>]*>", config)
    found = {name: re.search(rf'\b{name}="([^"]*)"', tag.group()) for name in ("name", "toName")} if tag else {}
    control, target = found.get("name"), found.get("toName")
    return (control.group(1), target.group(1)) if control and target else (CONTROL, TARGET)


def label_studio(app: FastAPI, suggestions: Suggestions, visitor: Any) -> None:
    """Add the endpoints that Label Studio calls: health, setup, predict; validate, versions and webhook answer too."""
    Who = Annotated[Any, Depends(visitor)]
    home = "/label-studio"

    @app.get(home)
    @app.get(home + "/")
    @app.get(home + "/health")
    def health() -> dict[str, Any]:
        return {"status": "UP", "model_class": MODEL, "v2": True}

    async def body(request: Request) -> dict[str, Any]:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "expected application/json")
        try:
            found = await request.json()
        except (ValueError, RecursionError) as error:
            raise HTTPException(422, "the request is no JSON") from error
        if not isinstance(found, dict):
            raise HTTPException(422, "the request is no JSON object")
        return found

    Body = Annotated[dict[str, Any], Depends(body)]

    @app.post(home + "/setup")
    def setup(who: Who, told: Body) -> dict[str, Any]:
        return {"model_version": suggestions.version()}

    @app.post(home + "/predict")
    def predict(who: Who, told: Body) -> dict[str, Any]:
        tasks = told.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise HTTPException(422, "expected {'tasks': [{'data': {...}}]}")
        if len(tasks) > TASKS:
            raise HTTPException(422, f"{len(tasks)} tasks at once are too many; at most {TASKS}")
        try:
            results = suggestions.of(tasks, interface(told.get("label_config"))) if tasks else []
        except LedgerError as error:
            raise HTTPException(503, str(error)) from error
        return {"results": results, "model_version": suggestions.version()}

    @app.post(home + "/validate")
    def validate(who: Who) -> dict[str, Any]:
        return {"status": "ok"}

    @app.get(home + "/versions")
    def versions(who: Who) -> dict[str, Any]:
        return {"versions": [suggestions.version()]}

    @app.post(home + "/webhook", status_code=201)
    def webhook(who: Who) -> dict[str, Any]:
        return {}
