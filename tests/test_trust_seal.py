"""Sealed data and models: what was sealed comes back; what was dropped, swapped, repeated, rolled back or altered is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography")
pytest.importorskip("fsspec")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelwright.errors import DataError, SealError, SettingsError
from labelwright.trust import seal
from labelwright.trust.seal.signing import signed_text
from labelwright.types import Batch

KEY = bytes(range(32))
OWNER = seal.new_key()
SETTINGS = settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))


def rows(n: int = 10, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return {"X": X, "given": rng.integers(3, size=n), "keys": np.arange(n), "clean": rng.random(n) < 0.2}


def sealed(n: int = 10, *, version: int = 1, **options: object) -> tuple[seal.Manifest, seal.Memory]:
    store = seal.Memory()
    defaults = {"key": KEY, "signing_key": OWNER, "id": "reviews", "version": version, "rows_per_chunk": 3}
    return seal.seal_data([rows(n)], store, **{**defaults, **options}), store


MANIFEST, STORE = sealed()


def chunk(index: int, manifest: seal.Manifest = MANIFEST, store: seal.Memory = STORE) -> bytes:
    return store[manifest.chunk(index)]


@pytest.mark.parametrize("num_rows", [None, 10])
@pytest.mark.parametrize("signer", [OWNER, Ed25519PrivateKey.generate()])
def test_rows_come_back_as_they_were(num_rows: int | None, signer: object) -> None:
    manifest, store = sealed(num_rows=num_rows, signing_key=signer)
    again = seal.Manifest.read(store[seal.NAME], seal.jwk_of(signer))  # type: ignore[arg-type]
    assert again == manifest and again.rows == (3, 3, 3, 1) and again.num_rows == 10
    parts = [seal.open_chunk(again, KEY, at, chunk(at, manifest, store)) for at in range(4)]
    for name, array in rows().items():
        back = np.concatenate([part[name] for part in parts])
        assert back.dtype == array.dtype and (back == array).all()
    assert not parts[0]["X"].flags.writeable


def test_batches_of_any_size_and_kind() -> None:
    whole = rows(11)
    parts = [
        Batch.of(0, whole["X"][:4], whole["given"][:4], clean=True),
        Batch.of(1, whole["X"][4:], whole["given"][4:]),
    ]
    store = seal.Memory()
    manifest = seal.seal_data(parts, store, key=KEY, signing_key=OWNER, id="b", rows_per_chunk=5)
    got = [seal.open_chunk(manifest, KEY, at, store[manifest.chunk(at)]) for at in range(3)]
    assert [len(g["X"]) for g in got] == [5, 5, 1] == list(manifest.rows)
    assert got[0]["keys"].tolist() == [0, 1, 2, 3, 1 << 32] and got[0]["clean"].tolist() == [True] * 4 + [False]
    with pytest.raises(DataError, match="batch 1 has X: float64"):
        seal.seal_data([{"X": np.zeros(2, np.float32)}, {"X": np.zeros(2)}], store, key=KEY, signing_key=OWNER, id="b")
    with pytest.raises(DataError, match="no rows"):
        seal.seal_data([], store, key=KEY, signing_key=OWNER, id="b")
    with pytest.raises(SealError, match="expected numbers"):
        seal.seal_data([{"X": np.array(["a"])}], store, key=KEY, signing_key=OWNER, id="b")


def test_nothing_of_the_rows_shows_in_the_store() -> None:
    text = b"".join(STORE.values())
    assert all(rows()["X"][at].tobytes() not in text for at in range(10)) and KEY not in text
    assert len({chunk(at) for at in range(4)}) == 4
    other, store = sealed()  # the same rows again: another salt, so no nonce meets a key twice
    assert chunk(0, other, store) != chunk(0)


# ---------------------------------------------------------------- attacks by the host

OLD_MANIFEST, OLD = sealed(version=1)
NEW_MANIFEST, NEW = sealed(version=2)
ATTACKS: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "dropped": (lambda: None, "dropped"),
    "swapped": (lambda: NEW["v2-00000001.chunk"], "it is chunk 1, swapped or repeated"),
    "repeated": (lambda: NEW["v2-00000000.chunk"], "it is chunk 0, swapped or repeated"),
    "rolled back": (lambda: OLD["v1-00000002.chunk"], "of another version"),
    "truncated": (lambda: NEW["v2-00000002.chunk"][:-1], "bytes where"),
    "cut at the front": (lambda: NEW["v2-00000002.chunk"][1:], "bytes where"),
    "longer": (lambda: b"\0" + NEW["v2-00000002.chunk"], "bytes where"),
    "empty": (lambda: b"", "dropped"),
    "altered": (lambda: flipped(NEW["v2-00000002.chunk"], 77), "altered"),
    "altered tag": (lambda: flipped(NEW["v2-00000002.chunk"], -1), "altered"),
    "of another data set": (lambda: sealed(version=2, id="other")[1]["v2-00000002.chunk"], "altered, or is of another"),
}


def flipped(content: bytes, at: int, bit: int = 1) -> bytes:
    out = bytearray(content)
    out[at] ^= bit
    return bytes(out)


@pytest.mark.parametrize("attack", ATTACKS)
def test_another_chunk_is_refused_by_name(attack: str) -> None:
    give, why = ATTACKS[attack]
    with pytest.raises(SealError, match=rf"chunk 2 of 'reviews' version 2 is not the one .*{why}") as refused:
        seal.open_chunk(NEW_MANIFEST, KEY, 2, give())
    assert refused.value.__cause__ is None  # nothing of the content travels with the error


def test_every_flipped_bit_of_a_chunk_is_refused() -> None:
    good = chunk(3)
    for bit in range(8 * len(good)):
        with pytest.raises(SealError, match="chunk 3"):
            seal.open_chunk(MANIFEST, KEY, 3, flipped(good, bit // 8, 1 << bit % 8))


def test_a_chunk_under_the_right_key_but_never_in_the_manifest_is_refused() -> None:
    """The tag alone does not open a chunk: a body that is not the tag's is refused too."""
    good = chunk(0)
    with pytest.raises(SealError, match="altered, or the key is another"):
        seal.open_chunk(MANIFEST, KEY, 0, flipped(good, 0)[:-16] + good[-16:])
    with pytest.raises(SealError, match="the key is another"):
        seal.open_chunk(MANIFEST, bytes(32), 0, good)
    with pytest.raises(SettingsError, match="31 bytes"):
        seal.open_chunk(MANIFEST, bytes(31), 0, good)
    for index in (-1, 4, 10**30, True, "0"):
        with pytest.raises(SealError, match="0 to 3"):
            seal.open_chunk(MANIFEST, KEY, index, good)  # type: ignore[arg-type]


def test_an_altered_manifest_is_refused() -> None:
    text, signer = STORE[seal.NAME], OWNER.public_key()
    rng = np.random.default_rng(0)
    for bit in rng.integers(8 * len(text), size=2000).tolist():
        with pytest.raises(SealError):
            seal.Manifest.read(flipped(text, bit // 8, 1 << bit % 8), signer)
    for other in (text[:-1], text + b"=", text + b"\n", b" " + text, text.replace(b".", b"..", 1), b"", b"{}"):
        with pytest.raises(SealError):
            seal.Manifest.read(other, signer)
    with pytest.raises(SealError, match="not signed by the owner"):
        seal.Manifest.read(text, seal.new_key().public_key())
    with pytest.raises(SealError, match="signed as something else"):
        seal.Manifest.read(signed_text(OWNER, b"{}", "JWT"), signer)
    with pytest.raises(SealError, match="rolled back: got version 1, expected 2"):
        seal.Manifest.read(text, signer, version=2)


@pytest.mark.parametrize(("signer", "name"), [(OWNER, "ES256"), (Ed25519PrivateKey.generate(), "Ed25519")])
def test_another_implementation_reads_the_manifest(signer: object, name: str) -> None:
    jose = pytest.importorskip("joserfc.jws")
    from joserfc.jwk import ECKey, OKPKey

    manifest, _ = sealed(signing_key=signer)
    kind = ECKey if name == "ES256" else OKPKey
    read = jose.deserialize_compact(manifest.text, kind.import_key(seal.jwk_of(signer)), algorithms=[name])  # type: ignore[arg-type]
    assert b'"id":"reviews","version":1' in read.payload and read.headers()["typ"] == "labelwright-manifest+json"


def test_a_chunk_that_holds_other_arrays_than_signed_is_refused() -> None:
    sealer = seal.Sealer("d", 1, key=KEY, count=2)
    first, second = sealer.add(seal.packed({"X": np.zeros(2)})), sealer.add(b"garbage")
    manifest = sealer.done(OWNER, rows=(3, 1), schema={"X": ("<f8", ())})
    with pytest.raises(SealError, match=r"chunk 0 .* other arrays"):
        seal.open_chunk(manifest, KEY, 0, first)
    with pytest.raises(SealError, match=r"chunk 1 .* holds no rows"):
        seal.open_chunk(manifest, KEY, 1, second)


def test_models_and_their_versions() -> None:
    model = (2).to_bytes(8, "little") + b"{}" + os.urandom(5000)
    store = seal.Memory()
    made = seal.seal_model(model, store, key=KEY, signing_key=OWNER, id="m", version=3, chunk_bytes=1000)
    assert made.count == 6 and seal.open_model(made, KEY, store, version=3) == model
    with pytest.raises(SealError, match="rolled back: the broker says version 4"):
        seal.open_model(made, KEY, store, version=4)
    store[made.chunk(1)], store[made.chunk(2)] = store[made.chunk(2)], store[made.chunk(1)]
    with pytest.raises(SealError, match=r"chunk 1 .* it is chunk 2"):
        seal.open_model(made, KEY, store)
    with pytest.raises(SettingsError, match="pickle"):
        seal.seal_model(b"\x80\x04.", store, key=KEY, signing_key=OWNER, id="m", version=4)


@pytest.mark.parametrize("address", ["memory://trust-{0}", "{1}/folder", "file://{1}/by-address"])
def test_stores(address: str, tmp_path: Path) -> None:
    where = address.format(os.getpid(), tmp_path)
    manifest = seal.seal_data([rows()], where, key=KEY, signing_key=OWNER, id="d", rows_per_chunk=4)
    store = seal.as_store(where)
    assert seal.Manifest.read(store.read(seal.NAME) or b"", OWNER.public_key()) == manifest
    assert len(seal.open_chunk(manifest, KEY, 2, seal.reader(manifest, where)(2))["X"]) == 2
    assert store.read("no such") is None
    with pytest.raises(SettingsError, match="no store that can be opened"):
        seal.as_store("nosuch://x")
    with pytest.raises(SettingsError, match="no store that can be opened"):
        seal.as_store("github://x")  # lacks what this file system needs to know


def test_the_description_is_sealed_too() -> None:
    manifest, _ = sealed(about={"classes": ["secret-class", "b"]})
    assert seal.about(manifest, KEY) == {"classes": ["secret-class", "b"]}
    assert b"secret-class" not in manifest.text
    with pytest.raises(SealError, match="does not open"):
        seal.about(manifest, bytes(32))


def test_opening_needs_little() -> None:
    """Inside an enclave: NumPy and cryptography, none of Arrow, fsspec, scikit-learn or torch."""
    heavy = ("pyarrow", "fsspec", "sklearn", "torch", "joserfc", "pandas", "fastapi")
    code = (
        f"import sys, labelwright.trust.seal, labelwright.trust.broker; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- fuzz


def fuzz_unpacked(content: bytes) -> None:
    try:
        assert isinstance(seal.unpacked(content), dict)
    except SealError as error:
        assert "\n" not in str(error)


def fuzz_manifest(content: bytes) -> None:
    for text in (content, signed_text(OWNER, content, "labelwright-manifest+json")):
        try:
            seal.Manifest.read(text, OWNER.public_key())
        except SealError as error:
            assert "\n" not in str(error)


def fuzz_chunk(content: bytes) -> None:
    with pytest.raises(SealError):
        seal.open_chunk(MANIFEST, KEY, 1, content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["X", "<f4", "|O", "|u1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes cut out, put in, changed or doubled."""
    out = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted((draw(st.integers(0, len(out))), draw(st.integers(0, len(out)))))
        out[at:end] = draw(st.sampled_from([b"", bytes(out[at:end]) * 2]) | st.binary(max_size=12))
    return bytes(out)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A chunk whose header is JSON of any kind, maybe the right one with other values."""
    import json

    axes = st.lists(st.integers(-3, 1 << 70) | st.integers(0, 3), max_size=9)
    kinds = st.sampled_from(["<f4", "|u1", "<i8", "|O", "|S5", "x"])
    entry = st.tuples(st.text(max_size=3), kinds, axes) | JSON
    head = json.dumps(draw(st.lists(entry, max_size=4) | JSON)).encode()
    size = draw(st.just(len(head)) | st.integers(0, 1 << 32 - 1))
    return b"LWA1" + (size % (1 << 32)).to_bytes(4, "little") + head + draw(st.binary(max_size=300))


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """A manifest's payload with some members replaced: signed right, and wrong inside."""
    import json

    told = json.loads(seal_payload())
    for name in draw(st.lists(st.sampled_from(sorted(told)), min_size=1, max_size=3)):
        told[name] = draw(JSON)
    return json.dumps(told).encode()


def seal_payload() -> bytes:
    from labelwright.trust.seal.signing import unb64

    return unb64(STORE[seal.NAME].split(b".")[1].decode())


PLAIN = bytes(seal.packed(rows(3)))
FUZZ: list[tuple[Callable[[bytes], None], st.SearchStrategy[bytes]]] = [
    (fuzz_unpacked, st.binary(max_size=200) | mutated(PLAIN) | headers()),
    (fuzz_manifest, st.binary(max_size=200) | mutated(STORE[seal.NAME]) | mutated(seal_payload()) | payloads()),
    (fuzz_chunk, (st.binary(max_size=200) | mutated(chunk(1))).filter(lambda content: content != chunk(1))),
]


@pytest.mark.parametrize(("judge", "inputs"), FUZZ, ids=lambda part: getattr(part, "__name__", ""))
def test_bent_input_is_one_sentence(judge: Callable[[bytes], None], inputs: st.SearchStrategy[bytes]) -> None:
    SETTINGS(given(inputs)(judge))()


@pytest.mark.soak
@pytest.mark.parametrize(("judge", "inputs"), FUZZ, ids=lambda part: getattr(part, "__name__", ""))
def test_bent_input_is_one_sentence_for_long(judge: Callable[[bytes], None], inputs: st.SearchStrategy[bytes]) -> None:
    many = int(os.environ.get("LABELWRIGHT_FUZZ", "100000"))
    settings(SETTINGS, max_examples=many)(given(inputs)(judge))()
