"""Many cores and machines: the same to the bit whatever maps, lost workers, and errors that name the rows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers import call_cli
from hypothesis import given as for_all
from hypothesis import settings as trying
from hypothesis import strategies as st
from scale_help import Numbered, always_dies, broken_source, dies_once, fails, times, unsendable

import labelwright
from labelwright.bench.qal import run_cell
from labelwright.errors import LabelwrightError, ScaleError, SettingsError, SourceError
from labelwright.exports import export_parts
from labelwright.judging import Judge, judge_of, predict_into, predictions
from labelwright.learners import scoring
from labelwright.ledger.verify import verify
from labelwright.runner import Run, Settings, StateFolder, reopened
from labelwright.scale import InProcess, Mapper, OnRay, Processes, Threads, open_mapper, opened
from labelwright.streams import Columns
from labelwright.tables import open_source, parts_of, vector_column

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 2,
}
LOCAL: dict[str, Callable[[], Mapper]] = {
    "in process": InProcess,
    "threads": lambda: Threads(3),
    "1 process": lambda: Processes(1),
    "3 processes": lambda: Processes(3),
}
PARTS = [Numbered(n) for n in range(7)]
FILES, ROWS = 6, 300


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes with a CPU each, to which this process is connected."""
    ray = pytest.importorskip("ray", reason="Ray is the extra 'ray'")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))  # of scale_help
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, connect=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def pool() -> Iterator[Mapper]:
    with Processes(2) as mapper:
        yield mapper


def rows(n: int, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    given = np.where(rng.random(n) < 0.2, rng.integers(3, size=n), y)
    X = rng.normal(size=(n, 8)) + 2 * np.eye(8)[y]
    label = pa.array([None if i % 50 == 7 else f"c{g}" for i, g in enumerate(given)], pa.string())
    return pa.table({"x": vector_column(X), "label": label, "verdict": pa.array(range(n))})


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> StateFolder:
    """A run by the default models, without rows that lack a label."""
    folder = tmp_path_factory.mktemp("scale")
    table = rows(400).drop_columns(["verdict"])
    state = StateFolder(folder / "state")
    for _ in Run(Settings(Columns("label"), batch_size=400), state).over(open_source(table)):
        pass
    return state


@pytest.fixture(scope="module")
def judge(state: StateFolder) -> Judge:
    return judge_of(reopened(state), labels=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six Parquet files, each a part."""
    folder = tmp_path_factory.mktemp("rows")
    for n in range(FILES):
        pq.write_table(rows(ROWS, seed=n), folder / f"{n:02d}.parquet", row_group_size=150)
    return folder


# ---------------------------------------------------------------- the seam


@pytest.mark.parametrize("make", LOCAL.values(), ids=LOCAL)
def test_results_come_in_order_and_the_workers_are_heard(make: Callable[[], Mapper]) -> None:
    with make() as mapper:
        heard: list[str] = []
        assert list(mapper.map(times, PARTS, shared=2, told=heard.append)) == [2 * n for n in range(7)]
        assert sorted(heard) == [f"at {n}" for n in range(7)]
        assert list(mapper.map(times, iter(PARTS), shared=3)) == [3 * n for n in range(7)]  # the same workers again
        assert list(mapper.map(times, [], shared=3)) == []
        with pytest.raises(ScaleError, match=r"^rows 3 failed \(KeyError: 'it is odd'\)$"):
            list(mapper.map(fails, PARTS, shared=KeyError))
        with pytest.raises(SourceError, match=r"^rows 0: it cannot be read; write it again$"):
            list(mapper.map(broken_source, PARTS, shared=None))


@pytest.mark.parametrize("make", LOCAL.values(), ids=LOCAL)
def test_no_more_partitions_are_under_way_than_may_be(make: Callable[[], Mapper]) -> None:
    taken = 0

    def parts() -> Iterator[Numbered]:
        nonlocal taken
        for part in PARTS * 5:
            taken += 1
            yield part

    with make() as mapper:
        for done, _ in enumerate(mapper.map(times, parts(), shared=1, ahead=5)):
            assert taken - done <= 6
    assert taken == 35


def test_a_killed_worker_costs_its_partition_another_try(tmp_path: Path, pool: Mapper) -> None:
    assert list(pool.map(dies_once, PARTS, shared=tmp_path / "died")) == list(range(7))
    assert (tmp_path / "died").exists()
    with pytest.raises(ScaleError, match=r"^rows 1: 3 workers died of it"):
        list(pool.map(always_dies, PARTS, shared=None))
    with pytest.raises(ScaleError, match=r"rows 0 failed .*cannot be sent"):
        list(pool.map(unsendable, PARTS, shared=None))
    with pytest.raises(Exception, match=r"lambda|pickle"):
        list(pool.map(lambda shared, part: part, PARTS, shared=None))
    assert list(pool.map(times, PARTS, shared=1)) == list(range(7))


def test_workers_do_not_outlive_whoever_gives_them_work(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path; from scale_help import Numbered, never_ends; from labelwright.scale import Processes\n"
        "if __name__ == '__main__': list(Processes(1).map(never_ends, [Numbered(0)], shared=Path(sys.argv[1])))"
    )
    (tmp_path / "master.py").write_text(code)
    master = subprocess.Popen([sys.executable, tmp_path / "master.py", tmp_path / "worker"])
    waited(lambda: (tmp_path / "worker").exists() and (tmp_path / "worker").read_text() != "")
    worker = int((tmp_path / "worker").read_text())
    master.kill()
    master.wait()
    waited(lambda: not Path(f"/proc/{worker}").exists())


def waited(true: Callable[[], bool], seconds: float = 60) -> None:
    """Until it is so; a failure after a minute."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_map_that_is_left_early_ends_its_work(pool: Mapper) -> None:
    for found in pool.map(times, PARTS, shared=1):
        assert found == 0
        break
    assert list(pool.map(times, PARTS[:2], shared=1)) == [0, 1]


@pytest.mark.parametrize("workers", [0, -2])
def test_no_workers_are_too_few(workers: int) -> None:
    with pytest.raises(SettingsError, match=f"--workers {workers} was asked for; give 1 or more"):
        open_mapper(workers)
    with pytest.raises(ScaleError, match="ask for 1 or more"):
        Processes(workers)


def test_which_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [type(open_mapper(n, threads=t)) for n, t in ((1, True), (2, True), (2, False))] == [
        InProcess,
        Threads,
        Processes,
    ]
    with Threads(2) as given, opened(given) as same:
        assert same is given
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ScaleError, match=r"Ray is not installed; run: pip install 'labelwright\[ray\]'"):
        open_mapper(2, "auto")


# ---------------------------------------------------------------- partitions


@trying(max_examples=60, deadline=None)
@for_all(
    files=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 25)), min_size=1, max_size=3),
    block=st.integers(1, 9),
)
def test_parts_hold_every_row_once_in_order_in_whole_blocks(
    files: list[tuple[int, int]], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, start = tmp_path_factory.mktemp("parts"), 0
    for name, (n, group) in enumerate(files):
        pq.write_table(pa.table({"x": list(range(start, start + n))}), folder / f"{name}.parquet", row_group_size=group)
        start += n
    found, sizes = [], []
    for part in parts_of(open_source(folder), block):
        blocks = [table["x"].to_pylist() for table in part.blocks(block)]
        assert sum(map(len, blocks)) == part.num_rows and all(len(b) == block for b in blocks[:-1])
        found += [value for one in blocks for value in one]
        sizes.append(part.num_rows)
    assert found == list(range(start)) and all(sizes)


def test_tables_are_cut_at_blocks_and_a_lost_file_is_named(tmp_path: Path) -> None:
    assert [part.num_rows for part in parts_of(open_source(pa.table({"x": list(range(25))})), 10)] == [10, 10, 5]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(25))}), file)
    part = next(parts_of(open_source(file), 10))
    file.unlink()
    with pytest.raises(SourceError, match="every machine that works on it must see it"):
        list(part.blocks(10))


# ---------------------------------------------------------------- the same to the bit


def whole(judge: Judge, source: Any, mapper: Mapper) -> pa.Table:
    return pa.concat_tables(predictions(judge, open_source(source), mapper=mapper)).combine_chunks()


def written(judge: Judge, source: Path, target: Path, mapper: Mapper) -> list[bytes]:
    assert sum(predict_into(judge, open_source(source), target, mapper=mapper)) == FILES * ROWS
    return [file.read_bytes() for file in sorted(target.iterdir())]


@pytest.fixture(scope="module")
def expected(judge: Judge, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return written(judge, folder, tmp_path_factory.mktemp("expected"), InProcess())


def test_judging(judge: Judge, folder: Path, tmp_path: Path, expected: list[bytes], pool: Mapper) -> None:
    one = whole(judge, folder, InProcess())
    assert whole(judge, folder, pool).equals(one)
    for name in ("threads", "3 processes"):
        with LOCAL[name]() as mapper:
            assert written(judge, folder, tmp_path / name, mapper) == expected
    assert pa.concat_tables(pq.read_table(pa.BufferReader(part)) for part in expected).combine_chunks().equals(one)
    assert one["verdict_original"].to_pylist()[:3] == [0, 1, 2]
    assert one["verdict"].null_count == one["label_score"].null_count == FILES * 6
    found = one.filter(pc.is_valid(one["verdict"])).to_pydict()
    assert set(found["verdict"]) == {"trusted", "rescued", "rejected"}
    by_hand = [one[f"proba_{c}"].to_numpy() for c in ("c0", "c1", "c2")]
    assert (np.array(["c0", "c1", "c2"])[np.argmax(by_hand, axis=0)] == one["predicted_label"].to_numpy(False)).all()


def test_verdicts_are_those_of_the_selector(state: StateFolder, judge: Judge) -> None:
    """A row is judged as the run would judge it: the two models and the noise matrix, by hand."""
    run, table = reopened(state), rows(500, seed=5)
    found = pa.Table.from_batches(whole(judge, table, InProcess()).to_batches()).to_pydict()
    X = run.intake.encoder.transform(table)
    quality, classifier = (learner.judge(X)[1] for learner in run.system.learners)
    noise = run.system.selector.noise
    for at in range(100):
        label = table["label"][at].as_py()
        if label is None:
            assert found["verdict"][at] is None
            continue
        given = int(label[1])
        agrees = [int(p[at].argmax()) == given for p in (quality, classifier)]
        assert found["verdict"][at] == ("trusted" if agrees[0] else "rescued" if agrees[1] else "rejected")
        proba = quality[at] if agrees[0] else (quality[at] + classifier[at]) / 2
        post = proba**noise.temperature * noise.transition[:, given]
        assert found["label_score"][at] == pytest.approx(post[given] / post.sum(), abs=1e-6)
        assert found["likely_label"][at] == f"c{post.argmax()}"


def ran(table: pa.Table, place: Path, mapper: Mapper) -> list[dict[str, Any]]:
    settings = Settings(Columns("label"), batch_size=500, quality="sgd", classifier="linear", budget=3)
    run = Run(settings, StateFolder(place), mapper=mapper)
    for _ in run.over(open_source(table)):
        pass
    assert verify(run.ledger.engine)[2] == []
    return [row for part in export_parts(run.history) for row in part.drop_columns(["decided_at"]).to_pylist()]


def test_a_run_decides_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Mapper) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 100)  # else only batches of more than 20,000 rows are cut
    table = rows(1000).drop_columns(["verdict"])
    one = ran(table, tmp_path / "1", InProcess())
    with Threads(3) as three:
        assert ran(table, tmp_path / "3", three) == one
    assert ran(table, tmp_path / "2", pool) == one


def scores(workers: Any) -> bytes:
    table = rows(600, seed=2)
    X = np.stack(table["x"].to_numpy(False))
    found = labelwright.audit(table["label"].to_pylist(), X=X, classifier="linear", folds=3, workers=workers)
    return found.label_score.tobytes() + found.issues.probability.to_numpy().tobytes()


def cell(workers: Any) -> dict[str, Any]:
    return run_cell("digits", 0.6, repeats=2, kernel="linear", methods=("q-only",), workers=workers)


def test_an_audit_and_an_experiment_find_the_same(pool: Mapper) -> None:
    assert scores(1) == scores(2) == scores(3) == scores(pool)
    assert cell(1) == cell(pool)


def test_on_two_nodes(
    cluster: Any,
    judge: Judge,
    folder: Path,
    tmp_path: Path,
    expected: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 250)
    with OnRay() as mapper:
        assert mapper.workers == 2
        heard: list[str] = []
        assert list(mapper.map(times, PARTS, shared=2, told=heard.append)) == [2 * n for n in range(7)]
        assert sorted(heard) == [f"at {n}" for n in range(7)]
        with pytest.raises(ScaleError, match=r"^rows 3 failed \(KeyError: 'it is odd'\)$"):
            list(mapper.map(fails, PARTS, shared=KeyError))
        assert written(judge, folder, tmp_path / "out", mapper) == expected
        assert scores(mapper) == scores(1)
        assert cell(mapper) == cell(1)
        table = rows(1000).drop_columns(["verdict"])
        assert ran(table, tmp_path / "ray", mapper) == ran(table, tmp_path / "here", InProcess())


class Counting(OnRay):
    """How many workers were lost."""

    lost = 0

    def fire(self, worker: Any) -> None:
        self.lost += 1
        super().fire(worker)


def test_a_node_that_dies_in_the_middle_changes_nothing(
    cluster: Any, judge: Judge, folder: Path, tmp_path: Path, expected: list[bytes]
) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    with Counting(workers=3) as mapper:
        done = predict_into(judge, open_source(folder), tmp_path / "out", mapper=mapper)
        counts = [next(done), next(done)]
        assert mapper.lost == 0
        cluster.remove_node(node, allow_graceful=False)
        counts += list(done)
        assert counts == [ROWS] * FILES
        assert list(mapper.map(times, PARTS, shared=2)) == [2 * n for n in range(7)]
        assert mapper.lost >= 1
    assert [file.read_bytes() for file in sorted((tmp_path / "out").iterdir())] == expected


class Leaving(InProcess):
    """A worker was killed while it wrote: what it had begun is still there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def map(self, *args: Any, **options: Any) -> Any:
        (self.folder / ".part-000001.parquet.k1ll").write_bytes(b"PAR1")
        return super().map(*args, **options)


def test_what_a_killed_worker_had_begun_to_write_is_taken_away(
    judge: Judge, folder: Path, tmp_path: Path, expected: list[bytes]
) -> None:
    assert written(judge, folder, tmp_path / "out", Leaving(tmp_path / "out")) == expected


# ---------------------------------------------------------------- the command line


def test_predict_on_two_processes(state: StateFolder, folder: Path, tmp_path: Path, expected: list[bytes]) -> None:
    options = ("predict", folder, "--state", state.path, "--judge")
    done = call_cli(*options, "--workers", 2, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0 and f'"rows": {FILES * ROWS}, "parts": {FILES}' in done.stdout, done.stderr
    assert [file.read_bytes() for file in sorted((tmp_path / "out").iterdir())] == expected
    again = call_cli(*options, "--output", tmp_path / "out")
    assert again.returncode == 2 and "holds part-0000" in again.stderr
    done = call_cli(*options, "--output", tmp_path / "one.parquet")
    assert done.returncode == 0 and pq.read_table(tmp_path / "one.parquet").num_rows == FILES * ROWS


WRONG = [
    (("--workers", "0"), "--workers 0 was asked for; give 1 or more"),
    (("--workers", "-3"), "--workers -3 was asked for"),
    (("--ray", "nowhere"), "--ray nowhere is no address; expected auto, local or HOST:PORT"),
    (("--ray", "127.0.0.1:1"), "no Ray answers at 127.0.0.1:1"),
]


@pytest.mark.parametrize("options, sentence", WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_wrong_workers_are_one_sentence(
    state: StateFolder, folder: Path, options: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if options[0] == "--ray":
        ray = pytest.importorskip("ray", reason="Ray is the extra 'ray'")
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
    file = folder / "00.parquet"
    for command in (
        ("predict", file, "--state", state.path),
        ("run", file, "--label", "label", "--state", folder / "never"),
        ("audit", file, "--label", "label"),
        ("bench", "qal", "--dataset", "digits"),
    ):
        done = call_cli(*command, *options)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and sentence in done.stderr, done.stderr
    if options[0] == "--workers":
        done = call_cli("bench", "table2", *options)
        assert done.returncode == 2 and sentence in done.stderr


def test_a_run_that_keeps_every_label_has_no_judge(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "s")
    settings = Settings(Columns("label"), batch_size=300, selector="none", classifier="bayes")
    for _ in Run(settings, state).over(open_source(rows(300).drop_columns(["verdict"]))):
        pass
    with pytest.raises(LabelwrightError, match="keeps every label"):
        judge_of(reopened(state), labels=True)


def test_a_process_that_may_not_look_at_its_libraries_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the confined learner, where /proc/self/maps is closed."""
    import threadpoolctl

    def refused(limit: int) -> None:
        raise PermissionError(13, "Permission denied", "/proc/self/maps")

    monkeypatch.setattr(threadpoolctl, "threadpool_limits", refused)
    assert list(InProcess().map(pow, [1, 2, 3], shared=2)) == [2, 4, 8]
