"""From a user's file to a site at work: everything the command line calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.errors import DataError, SettingsError
from labelwright.settings import StateFolder
from labelwright.sites.plan import ENCODER, PLAN, Member, Plan
from labelwright.sites.records import Records, model_of
from labelwright.sites.running import Member as Working
from labelwright.sites.running import Membership, Progress
from labelwright.sites.site import Site
from labelwright.streams import Bad, Columns, Intake, class_names, label_text
from labelwright.tables import Encoder, TableSource, open_source
from labelwright.types import Batch, Floats

ROWS = 1 << 30


@dataclass(frozen=True)
class Ours:
    """A site's own rows. batch: encoded. bad: rows set aside."""

    batch: Batch
    bad: list[Bad]


def whole(source: TableSource) -> pa.Table:
    """All rows of a source. Raises DataError when there are none."""
    from labelwright.tables import together

    parts = list(source.chunks(100_000))
    if not parts:
        raise DataError(f"{source.name} holds no rows; a site needs some")
    return together(parts)


def drafted(
    folder: Path,
    data: str,
    members: Mapping[str, Member],
    *,
    label: str,
    id: str | None = None,
    classes: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    **changes: Any,
) -> Plan:
    """Write a plan into a folder: classes and the encoding of rows are those of ``data``, the planner's own rows.

    The other sites learn from it the ranges and the categories or words of the planner's columns, and no row. Raises
    SettingsError when there is a plan already.
    """
    if (folder / PLAN).exists():
        raise SettingsError(f"{folder / PLAN} exists; name another folder, so that no plan is lost")
    source = open_source(data)
    columns = Columns(label, id, drop=drop)
    source.require(*columns.named)
    table = whole(source)
    names = classes or class_names(label_text(table.column(label)))
    encoder = Encoder(exclude=columns.not_features).fit(table)
    X = encoder.transform(table)
    spread = float(X.var()) or 1.0
    content = encoder.to_bytes()
    plan = Plan(names, X.shape[1], label=label, id=id or "", encoder=hashlib.sha256(content).hexdigest(),
                bandwidth=round(1.0 / (X.shape[1] * spread), 8), members=dict(members))  # fmt: skip
    plan = replace(plan, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENCODER).write_bytes(content)
    (folder / PLAN).write_text(plan.to_toml())
    return plan


def encoder_of(folder: Path, plan: Plan) -> Encoder:
    """The plan's encoder. Raises SettingsError when the file is not the one that was agreed on."""
    try:
        content = (folder / ENCODER).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{folder / ENCODER} cannot be read ({error.strerror}); copy it from where the plan was made"
        ) from error
    if hashlib.sha256(content).hexdigest() != plan.encoder:
        raise SettingsError(f"{folder / ENCODER} is not the one the plan names; copy both from where the plan was made")
    return Encoder.from_bytes(content)


def rows_of(data: str, folder: Path, plan: Plan, *, trusted: str | None = None, strict: bool = False) -> Ours:
    """A site's rows, encoded as the plan says; bad ones set aside with a reason."""
    source = open_source(data)
    columns = Columns(plan.label, plan.id or None, trusted)
    source.require(*columns.named)
    intake = Intake(columns, encoder_of(folder, plan), plan.classes, strict=strict)
    name = Path(source.name).name
    found = intake.accept(whole(source), f"{name}#0")
    if not len(found.good):
        raise DataError(
            f"none of the rows of {source.name} can be used ({found.bad[0][2] if found.bad else 'it is empty'})"
        )
    return Ours(intake.batch(found, id=f"{name}#0", number=0), found.bad)


def join(
    folder: Path,
    membership: Membership,
    state: StateFolder,
    data: str | None,
    *,
    trusted: str | None = None,
    strict: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Take part until the plan's rounds are done, then judge the rows. Run again after a stop, it goes on.

    data: the rows; None for the coordinator, which has none. Raises a LabelwrightError with one plain sentence.
    """
    plan = membership.plan
    coordinates = plan.coordinator == membership.me
    if coordinates == (data is not None):
        raise SettingsError(
            f"{membership.me!r} is the plan's coordinator and has no rows; leave DATA out" if coordinates
            else f"{membership.me!r} is a site with rows; name its DATA"
        )  # fmt: skip
    ours = None if data is None else rows_of(data, folder, plan, trusted=trusted, strict=strict)
    state.claim()
    try:
        records = Records(state, plan, membership.me)
        if ours is not None:
            records.ledger.set_aside(ours.batch.id, ours.bad)
        if not records.judged:
            site = None if ours is None else Site(plan, ours.batch.X, ours.batch.given, clean=ours.batch.clean)
            with Working(membership, site, records, state) as member:
                member.run(progress)
                member.finish(None if ours is None else ours.batch)
    finally:
        state.release()
    from labelwright.sites.records import told

    return told(state)


def predictions(folder: Path, state: StateFolder, data: str, *, rows: int = 10_000) -> Iterator[pa.Table]:
    """The user's columns with ``predicted_label`` and a probability of each class, by the shared model as this site has it."""
    plan = Plan.read(folder)
    held = model_of(state)["site"]
    if held is None:
        raise SettingsError("a coordinator has no rows and predicts nothing; ask a site")
    encoder, features = encoder_of(folder, plan), plan.make_features()
    site = Site(plan, np.zeros((0, plan.width), np.float32), np.zeros(0, np.int64))
    site.restore(held)
    for chunk in open_source(data).chunks(rows):
        proba: Floats = site.proba(features(encoder.transform(chunk)))
        best = [plan.classes[at] for at in proba.argmax(axis=1)]
        out = chunk.append_column("predicted_label", pa.array(best))
        for at, name in enumerate(plan.classes):
            out = out.append_column(f"proba_{name}", pa.array(proba[:, at]))
        yield out
