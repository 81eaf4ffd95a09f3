"""The audit's report: numbers counted by hand, the doubted rows as they are, nothing fetched, nothing unescaped."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import labelwright
from labelwright import Audit
from labelwright.errors import SourceError
from labelwright.report.audit import scored, write_audit_report
from labelwright.report.audit_data import audit_data, confused_pairs, headline, second_line

EVIL = "<script>alert('x')</script>"
NAMES = ("cat", "dog & <b>$x^2$</b>", "fox")


def sure(y: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """(n, k) probabilities of a model that is right in every row, and surer of some than of others."""
    rng = np.random.default_rng(seed)
    top = rng.uniform(0.75, 0.97, len(y))
    p = np.repeat(((1 - top) / (k - 1))[:, None], k, axis=1)
    p[np.arange(len(y)), y] = top
    return p


def audited(n: int = 240, wrong: int = 24, k: int = 3, **more: object) -> Audit:
    """The first ``wrong`` labels are wrong: each names the next class."""
    y = np.arange(n) % k
    given = y.copy()
    given[:wrong] = (given[:wrong] + 1) % k
    named = [NAMES[c] for c in given] if k == 3 else given
    return labelwright.audit(named, sure(y, k), classes=NAMES if k == 3 else None, random_state=0, **more)  # type: ignore[arg-type]


def written(audit: Audit, path: Path, title: str = "") -> str:
    return audit.report(path / "r.html", title=title).read_text()


def parsed(html: str) -> ET.Element:
    """The page as a tree, its void elements closed: broken markup, or an & that is none, raises."""
    closed = re.sub(r"<(meta|img)([^>]*?)>", r"<\1\2/>", html.replace("<!DOCTYPE html>", ""))
    return ET.fromstring(closed.replace("&nbsp;", " ").replace("<details open>", "<details>"))


def test_numbers_are_those_of_the_audit(tmp_path: Path) -> None:
    found = audited(sources=["ann"] * 12 + ["bob"] * 228)
    data = audit_data(found)
    assert (data["rows"], data["doubted"], data["answers"], data["unlabelled"]) == (240, 24, 0, 0)
    assert sum(data["scores"]["counts"]) == 240 and sum(data["scores"]["counts"][:25]) == 24
    assert [row["position"] for row in data["doubtful"]["rows"]] == found.ranking[:24].tolist()
    assert data["sources"][0]["name"] == "ann" and data["sources"][0]["issues"] == 12
    assert sum(c["issues"] for c in data["classes"]) == 24
    assert headline(found).startswith("24 of 240 labels look wrong (10.0 %); estimated noise ")
    assert re.search(
        r"Of these about \d+ % are really wrong \(.+ to .+; answer questions to narrow this\)", second_line(found)
    )
    html = written(found, tmp_path)
    for part in ("24 of 240 labels look wrong (10.0\u00a0%)", 'id="sources"', 'id="doubtful"', "Nobody has answered"):
        assert part in html


def test_pairs_count_rows_by_hand() -> None:
    pairs = confused_pairs(audited())
    assert {(p["true"], p["given"]) for p in pairs[:3]} == {
        (NAMES[0], NAMES[1]),
        (NAMES[1], NAMES[2]),
        (NAMES[2], NAMES[0]),
    }
    assert sum(p["rows"] for p in pairs) == pytest.approx(24, abs=6)
    assert all(p["probability"] == pytest.approx(p["rows"] / 80, rel=0.2) for p in pairs[:3])


def test_doubted_rows_are_shown_and_escaped(tmp_path: Path) -> None:
    n = 240
    texts = [f"{EVIL} text {i}" for i in range(n)]
    found = audited(
        X=pd.DataFrame({f"col {EVIL}": texts, "price": np.arange(n) / 7}), ids=[f"id<{i}>" for i in range(n)]
    )
    html = written(found, tmp_path, title=f"Audit {EVIL}")
    assert "<script" not in html and "<b>$x^2$" not in html and html.count("&lt;script&gt;") > 24
    assert "text 23" in html and "text 24" not in html  # 24 doubted rows, and they alone
    assert "id&lt;0&gt;" in html and "dog &amp; &lt;b&gt;$x^2$" in html
    tree = parsed(html)
    cards = [node for node in tree.iter("li") if node.get("id", "").startswith("row-")]
    assert len(cards) == 24 and "price" in "".join(cards[0].itertext())


def test_it_stands_alone(tmp_path: Path) -> None:
    html = written(audited(), tmp_path)
    assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink))", html)
    assert not re.search(r"<(script|link|iframe|object)|\son\w+=|@import|url\((?!#)", html)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'content="{policy}"' in html
    assert html.count("<svg") == 4  # two figures, wide and narrow
    parsed(html)


def test_pictures_from_images_and_from_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (240, 8, 8)).astype(np.uint8)
    out = []
    for square in pixels:
        file = io.BytesIO()
        Image.fromarray(square).save(file, "PNG")
        out.append({"bytes": file.getvalue(), "path": None})
    table = pa.table({"image": pa.array(out, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    for X in (table, pixels.reshape(240, 64).astype(float)):
        html = written(audited(X=X), tmp_path)
        assert html.count('src="data:image/png;base64,') == 24 and 'class="rows gallery"' in html


def test_near_duplicates_that_contradict_each_other(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(240, 5))
    X[0] = X[1] = X[2]  # labels 1, 2, 0
    X[100] = X[103]  # the same label
    found = audited(X=X)
    groups = audit_data(found)["duplicates"]
    assert groups["conflicts"] == 1 and [row["position"] for row in groups["groups"][0]["rows"]] == [0, 1, 2]
    assert "1 group of near-duplicates has more than one label" in written(found, tmp_path)
    assert audit_data(audited())["duplicates"] is None  # nothing to tell them by


def test_answers_settle_rows(tmp_path: Path) -> None:
    first = audited()
    settled = first.answered({int(at): NAMES[int(at) % 3] for at in first.ranking[:10]})
    data = audit_data(settled)
    shown = [row["position"] for row in data["doubtful"]["rows"]]
    assert data["answers"] == 10 and not set(shown) & set(first.ranking[:10].tolist())
    assert "after 10 answers" in second_line(settled) and "called 10 labels wrong" in data["rests_on"]
    assert "Rows that an expert has settled are left out" in written(settled, tmp_path)


def test_missing_labels_many_classes_and_no_issue(tmp_path: Path) -> None:
    y = np.arange(6000) % 300
    with pytest.warns(UserWarning, match="look in-sample"):  # every label is the likeliest
        found = labelwright.audit(y, sure(y, 300), random_state=0)
    html = written(found, tmp_path)
    assert "No label is doubted." in html and "All 300 are in" in html and len(html) < 300_000
    assert "Noise matrix of" not in html
    labels = [None, *[NAMES[c] for c in np.arange(1, 240) % 3]]
    some = labelwright.audit(labels, sure(np.arange(240) % 3, 3), classes=NAMES, random_state=0)
    html = written(some, tmp_path)
    assert "1 without a label" in html and "0 of 239 labels look wrong (0\u00a0%)" in html


def test_a_folder_is_made_or_the_error_is_a_sentence(tmp_path: Path) -> None:
    found = audited()
    assert write_audit_report(found, tmp_path / "new" / "r.html").stat().st_size > 10_000
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="the report cannot be written to"):
        found.report(tmp_path / "file" / "r.html")


def test_scores_in_words() -> None:
    assert [scored(v) for v in (0.0, 4e-5, 6e-5, 1.0)] == ["0", "under 0.0001", "0.0001", "1.0000"]
