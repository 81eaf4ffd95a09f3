"""workload.toml and what it renders to."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelwright.errors import RefusedError, SettingsError
from labelwright.sites.plan import Plan
from labelwright.trust import render
from labelwright.trust.policy import Policy
from labelwright.trust.workload import EXAMPLE, Workload, code_digest

WORKLOAD = Workload.from_toml(EXAMPLE)
MANIFEST = render.gramine(WORKLOAD)


def test_the_digest_is_of_everything_but_the_hosts_table(tmp_path: Path) -> None:
    host = EXAMPLE.index("[host]")
    for before, after in [
        ("wards", "words"),
        ("= 10", "= 11"),
        ("64 MB", "65 MB"),
        ("wards-judged", "other"),
        ('"classifier"', '"C"'),
    ]:
        assert Workload.from_toml(EXAMPLE.replace(before, after, 1)).digest != WORKLOAD.digest
    assert Workload.from_toml(EXAMPLE[:host]).digest == WORKLOAD.digest
    path = tmp_path / "workload.toml"
    path.write_text(EXAMPLE)
    assert Workload.read(path).digest == WORKLOAD.digest


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('mode = "judge"', 'mode = "guess"', "mode = 'guess'; expected one of judge"),
        ('memory = "64 MB"', 'memory = "1 MB"', "at least 48 MB"),
        ('memory = "64 MB"', "memory = 64", "expected e.g. '64 MB'"),
        ("classes = 10", "classes = 1", "whole number from 2"),
        ("classes = 10", "classes = true", "whole number from 2"),
        ("classes = 10", "klasses = 10", "'klasses' in \\[data\\]"),
        ("[models]", "[model]", "no table of a workload"),
        ("classes = 10\n", "", "lacks 'classes' in \\[data\\]"),
        ('id = "wards"', 'id = "../etc"', "short name"),
        ('ledger = "wards-judged"', "ledger = 4", "short name"),
        ('code = "sha256:', 'code = "md5:', "this package is sha256:"),
        ('name = "wards"', "name = 3", "short name"),
        ("[workload]", "[workload", "not valid TOML"),
        ('memory = "64 MB"', 'memory = "64 MB"\nentry = "os:system"', "only 'labelwright.trust.inside:main' runs"),
        ("[broker]\nkey = {", "[broker]\nkey = [{", "not valid TOML"),
        ("[broker]\n", "[broker]\nkey = 1\n[expert]\n", "no public key in \\[broker\\]"),
        ('evidence = "sim"', "evidence = 1", "in \\[host\\]; expected a text"),
        ("[result]", "[learn]", "in \\[learn\\]"),
        ('memory = "64 MB"', 'memory = "64 MB"\nseed = ' + "1" * 5000, "not valid TOML"),
        ('memory = "64 MB"', 'memory = "64 MB"\nseed = 0x' + "f" * 5000, "more than 64 bits"),
        ('kty = "EC"', "kty = 1979-05-27", "no public key in \\[broker\\]"),
        ('kty = "EC"', "kty = nan", "no public key in \\[broker\\]"),
    ],
)
def test_bad_workloads_are_named_in_one_sentence(before: str, after: str, sentence: str) -> None:
    assert before in EXAMPLE
    with pytest.raises(SettingsError, match=sentence) as raised:
        Workload.from_toml(EXAMPLE.replace(before, after, 1))
    assert "\n" not in str(raised.value)


def test_a_mode_names_the_tables_that_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="lacks 'model' in"):
        Workload.from_toml(EXAMPLE.replace('"judge"', '"qal"'))
    with pytest.raises(SettingsError, match="cannot be read"):
        Workload.read(tmp_path / "nothing.toml")


@settings(max_examples=200, deadline=2000)
@given(st.text(max_size=80), st.integers(0, len(EXAMPLE)))
def test_no_text_gives_a_traceback(text: str, at: int) -> None:
    for bent in (text, EXAMPLE[:at] + text + EXAMPLE[at:]):
        try:
            Workload.from_toml(bent)
        except SettingsError as error:
            assert str(error)


def test_the_code_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = code_digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    assert code_digest(tmp_path) != before
    with pytest.raises(RefusedError, match="names the code sha256:0000"):
        WORKLOAD.check_code()
    Workload.from_toml(EXAMPLE.replace(f"sha256:{'0' * 64}", code_digest())).check_code()


def test_the_manifest_is_toml_and_passes_its_own_linter() -> None:
    told = tomllib.loads(MANIFEST)
    assert render.lint(MANIFEST) == []
    assert told["sgx"]["enclave_size"] == "256M" and told["sgx"]["debug"] is False
    assert told["loader"]["env"]["LABELWRIGHT_WORKLOAD"] == WORKLOAD.digest.hex()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("loader.insecure__use_cmdline_argv = true", "insecure__use_cmdline_argv: an option"),
        ("loader.insecure__use_host_env = true", "insecure__use_host_env"),
        ("sys.insecure__allow_eventfd = true", "insecure__allow_eventfd"),
        ('fs.insecure__keys.default = "00"', "insecure__keys"),
        ('sgx.allowed_files = ["file:/tmp/x"]', "sgx.allowed_files"),
        ("sgx.enable_stats = true", "enable_stats"),
        ("loader.env.HOME = { passthrough = true }", "the host chooses"),
        ('loader.argv_src_file = "file:argv"', "argv_src_file"),
        ('sgx.profile.enable = "main"', "profiling"),
    ],
)
def test_the_linter_finds_what_is_added(line: str, sentence: str) -> None:
    (found,) = render.lint(MANIFEST + line + "\n")
    assert sentence in found


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("sgx.debug = false", "sgx.debug = true", "sgx.debug = true"),
        ('"dcap"', '"none"', "which code runs"),
        ('file_check_policy = "strict"', 'file_check_policy = "allow_all_but_log"', "file_check_policy"),
        ('log_level = "error"', 'log_level = "trace"', "log_level"),
        ('  "file:{{ python_packages }}/",\n', "", "does not name"),
        ('  "file:{{ entrypoint }}",\n', '  "file:{{ entrypoint }}",\n  "file:/",\n', "whole disk"),
        ('  "file:{{ entrypoint }}",\n', '  "file:{{ entrypoint }}",\n  "file:/usr/..",\n', "whole disk"),
        ('  "file:{{ entrypoint }}",\n', '  "file:{{ entrypoint }}",\n  "file:///",\n', "whole disk"),
        ('{ path = "/lib", uri', '{ type = "untrusted_shm", path = "/lib", uri', "host shares"),
    ],
)
def test_the_linter_finds_what_is_altered(before: str, after: str, sentence: str) -> None:
    assert before in MANIFEST
    assert any(sentence in found for found in render.lint(MANIFEST.replace(before, after)))


@pytest.mark.parametrize("files", ["5", "[{ uri = 5 }]", '"file:/x"', "{ one = 5 }", '[["file:/x"]]', "[1.5, true]"])
def test_the_linter_reads_trusted_files_of_any_kind(files: str) -> None:
    text = f'sgx.trusted_files = {files}\nfs.mounts = [{{ path = "/x", uri = "file:/y" }}, 3, {{ uri = 4 }}]'
    assert any("'file:/y', which sgx.trusted_files does not name" in found for found in render.lint(text))


def test_the_linter_reads_the_older_spelling_of_trusted_files() -> None:
    text = 'sgx.trusted_files.one = "file:/y"\nfs.mounts = [{ path = "/x", uri = "file:/y" }]'
    assert not any("does not name" in found for found in render.lint(text))


@pytest.mark.parametrize("number", ["1" * 5000, "0x" + "f" * 5000, "[[0x" + "f" * 16 + "0]]"])
def test_a_number_that_is_too_long_is_no_toml(number: str) -> None:
    for read in (render.lint, Workload.from_toml, Policy.from_toml, Plan.from_toml):
        with pytest.raises(SettingsError, match="not valid TOML") as raised:
            read(f"x = {number}")
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_manifest_without_trusted_files_or_toml() -> None:
    assert any("trusted_files is empty" in found for found in render.lint("sgx.debug = false"))
    with pytest.raises(SettingsError, match="not valid TOML"):
        render.lint("{% for %}")


def test_reference_values_carry_the_digest_and_say_what_must_be_measured() -> None:
    told = tomllib.loads(render.vm(WORKLOAD))
    assert told["workloads"] == [WORKLOAD.digest.hex()] and len(told["tdx"]["mr_config_id"][0]) == 96
    assert "FILL-IN" in told["tdx"]["mr_td"][0] and "FILL-IN" in told["snp"]["measurement"][0]


def test_the_sandbox_allows_no_file_no_network_and_claims_nothing() -> None:
    told = json.loads(render.sandbox(WORKLOAD))
    assert told["files"] == [] and told["isolation"] == "none" and told["memory"] == 64 << 20
    assert not {"open", "openat", "socket", "connect", "clone", "fork", "execve", "ptrace"} & set(
        told["system_calls"]["allowed"]
    )
    with pytest.raises(SettingsError, match="cannot be rendered"):
        render.render(WORKLOAD, "trustzone")
