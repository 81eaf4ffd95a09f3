"""One workload, many TEEs: a manifest template for Gramine and its linter, reference values for confidential VMs, the sandbox.

Gramine's keys are those of its 1.9 manual ("Manifest syntax"); the template is for ``gramine-manifest``, which fills in the names in
braces. Nothing here was run by Gramine: it is rendered and linted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from posixpath import normpath
from typing import Any

from labelwright.errors import SettingsError
from labelwright.toml import tables_of
from labelwright.trust.confine import syscalls
from labelwright.trust.workload import MEGABYTE, Workload

KINDS = ("gramine", "vm", "sandbox")
_FILLED = "FILL-IN-FROM-YOUR-IMAGE"
_MODULES = "{{ python_packages }}"
_QUIET = ("none", "error", "warning")


def gramine(workload: Workload) -> str:
    """A ``.manifest.template``, TOML once its names in braces are filled in.

    >>> from labelwright.trust.workload import EXAMPLE
    >>> lint(gramine(Workload.from_toml(EXAMPLE)))
    []
    """
    size = 1 << max(28, (2 * workload.memory - 1).bit_length())
    trusted = [
        "{{ gramine.libos }}",
        "{{ gramine.runtimedir() }}/",
        "{{ entrypoint }}",
        "{{ python_library }}/",
        f"{_MODULES}/",
    ]
    files = "".join(f'  "file:{name}",\n' for name in trusted)
    mounts = "".join(
        f'  {{ path = "{path}", uri = "file:{uri}" }},\n'
        for path, uri in [
            ("/lib", "{{ gramine.runtimedir() }}"),
            ("{{ entrypoint }}", "{{ entrypoint }}"),
            ("{{ python_library }}", "{{ python_library }}"),
            (_MODULES, _MODULES),
        ]
    )
    return f"""\
# Gramine manifest template of the workload {workload.name!r}, digest {workload.digest.hex()}.
# gramine-manifest -Dentrypoint=/usr/bin/python3.11 -Dpython_library=/usr/lib/python3.11 -Dpython_packages=/opt/labelwright \\
#   THIS.manifest.template > labelwright.manifest; gramine-sgx-sign ...; its MRENCLAVE goes into the policy as sgx.mr_enclave.
libos.entrypoint = "{{{{ entrypoint }}}}"
loader.log_level = "error"
loader.argv = ["python3", "-c", "from labelwright.trust.inside import main; main(3)"]
loader.env.LD_LIBRARY_PATH = "/lib"
loader.env.PYTHONPATH = "{_MODULES}"
loader.env.OMP_NUM_THREADS = "{workload.threads}"
loader.env.LABELWRIGHT_WORKLOAD = "{workload.digest.hex()}"
sys.stack.size = "2M"
sys.enable_sigterm_injection = false

fs.mounts = [
{mounts}]

sgx.debug = false
sgx.edmm_enable = false
sgx.enclave_size = "{size // MEGABYTE}M"
sgx.max_threads = {workload.threads + 8}
sgx.remote_attestation = "dcap"
sgx.file_check_policy = "strict"
sgx.isvprodid = 1
sgx.isvsvn = 1
sgx.trusted_files = [
{files}]
"""


def lint(text: str) -> list[str]:
    """What makes a manifest (or its template) unfit for secrets, one sentence each; empty when nothing does.

    Raises SettingsError when it is no TOML.

    >>> lint('sgx.debug = true')[0]
    "sgx.debug = true: the host may read the enclave's memory; write sgx.debug = false"
    """
    hint = "; give a manifest, or a template with its braces in quotes"
    manifest = tables_of(text, "the manifest", hint)
    entries = dict(_flat(manifest))
    found = [
        f"{key}: an option that Gramine itself calls insecure; leave it out"
        for key in entries
        if key.rsplit(".", 1)[-1].startswith("insecure__")
    ]
    found += [sentence for key, sentence in _MUST_NOT.items() if _truthy(entries.get(key))]
    found += [sentence for key, (good, sentence) in _MUST.items() if entries.get(key) not in good]
    found += list(_passed_environment(entries))
    found += list(_weak_mounts(manifest))
    return found


_MUST_NOT = {
    "sgx.debug": "sgx.debug = true: the host may read the enclave's memory; write sgx.debug = false",
    "sgx.allowed_files": "sgx.allowed_files: files that the host may alter unseen; name them in sgx.trusted_files with their hashes",
    "sgx.enable_stats": "sgx.enable_stats = true: tells the host what happens inside, and needs a debug enclave; leave it out",
    "sgx.vtune_profile": "sgx.vtune_profile: profiling is for debug enclaves; leave it out",
    "sys.enable_extra_runtime_domain_names_conf": "sys.enable_extra_runtime_domain_names_conf: names come from the host; leave it out",
    "loader.argv_src_file": "loader.argv_src_file: arguments from a file of the host; write loader.argv",
    "loader.env_src_file": "loader.env_src_file: environment from a file of the host; write loader.env",
}
_MUST: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "sgx.remote_attestation": (
        ("dcap",),
        "sgx.remote_attestation is not 'dcap': nobody can tell which code runs; write 'dcap'",
    ),
    "sgx.file_check_policy": (
        (None, "strict"),
        "sgx.file_check_policy lets files in that nobody measured; write 'strict' or leave it out",
    ),
    "loader.log_level": (
        (None, *_QUIET),
        "loader.log_level tells the host about the data in its traces; write 'error'",
    ),
    "sgx.profile.enable": ((None, "none", False), "sgx.profile.enable: profiling is for debug enclaves; leave it out"),
}


def _truthy(value: Any) -> bool:
    return bool(value) and value not in ("none", "false")


def _flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry by its dotted name; tables within lists by their place."""
    for key, value in table.items():
        yield f"{path}{key}", value
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                if isinstance(inner, dict):
                    yield from _flat(inner, f"{path}{key}[{place}].")


def _passed_environment(entries: Mapping[str, Any]) -> Iterator[str]:
    for key, value in entries.items():
        if key.startswith("loader.env.") and key.endswith(".passthrough") and value is True:
            yield f"{key}: a variable that the host chooses; give it a value in the manifest"


def _weak_mounts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Mounts whose files nobody measured, and trusted files without a place."""
    sgx, fs = manifest.get("sgx", {}), manifest.get("fs", {})
    mounts = fs.get("mounts", []) if isinstance(fs, dict) else []
    if not isinstance(sgx, dict) or not sgx.get("trusted_files"):
        yield "sgx.trusted_files is empty: no file of the program is measured; name them all"
        return
    named = sgx["trusted_files"]
    entries = list(named.values()) if isinstance(named, dict) else named if isinstance(named, list) else [named]
    trusted = [str(entry.get("uri", "") if isinstance(entry, dict) else entry) for entry in entries]
    if any(normpath(f"/{uri.removeprefix('file:')}").strip("/") == "" for uri in trusted):
        yield "sgx.trusted_files names a whole disk or the working folder: name the program's own folders"
    for mount in mounts if isinstance(mounts, list) else []:
        if not isinstance(mount, dict) or mount.get("type") in ("tmpfs", "encrypted", "untrusted_shm"):
            if isinstance(mount, dict) and mount.get("type") == "untrusted_shm":
                yield f"the mount {mount.get('path')!r} is memory that the host shares; leave it out"
            continue
        uri = str(mount.get("uri", ""))
        if not any(uri.rstrip("/") == t.rstrip("/") or (t.endswith("/") and uri.startswith(t)) for t in trusted):
            yield f"the mount {mount.get('path')!r} shows {uri!r}, which sgx.trusted_files does not name: reading it fails; name it"


def vm(workload: Workload) -> str:
    """Reference values for confidential VMs, as tables of a policy: what follows from the workload is filled in, what follows from your
    image is marked and must be measured.

    >>> from labelwright.trust.workload import EXAMPLE
    >>> print(vm(Workload.from_toml(EXAMPLE)).splitlines()[2])
    kinds = ["tdx", "snp"]
    """
    digest = workload.digest.hex()
    return f"""\
# Reference values of the workload {workload.name!r} for confidential VMs. Replace {_FILLED!r} by the
# measurements of your own image (see docs/trust.md); start the TD with MRCONFIGID = the workload's digest, padded with zeros.
kinds = ["tdx", "snp"]
accept = ["affirming"]
workloads = ["{digest}"]

[tdx]
tcb = ["UpToDate"]
mr_td = ["{_FILLED}"]
rt_mr0 = ["{_FILLED}"]
rt_mr1 = ["{_FILLED}"]
rt_mr2 = ["{_FILLED}"]
mr_config_id = ["{digest}{"0" * 32}"]

[snp]
measurement = ["{_FILLED}"]
max_vmpl = 0
min_svn = 1
"""


def sandbox(workload: Workload) -> str:
    """What the local sandbox allows, as JSON: the same settings that ``labelwright trust run`` uses.

    >>> from labelwright.trust.workload import EXAMPLE
    >>> json.loads(sandbox(Workload.from_toml(EXAMPLE)))["isolation"]
    'none'
    """
    jit = workload.mode == "rad-duo"
    told = {
        "workload": workload.name,
        "digest": workload.digest.hex(),
        "isolation": "none",
        "memory": workload.memory,
        "threads": workload.threads,
        "files": [],
        "network": "none",
        "sockets": ["one, inherited, to the host"],
        "dumpable": False,
        "executable_memory": jit,
        "system_calls": {
            "default": "EPERM",
            "allowed": sorted(syscalls.ALLOWED),
            "conditional": ["mmap", "mprotect", "tgkill"],
        },
    }
    return json.dumps(told, indent=1)


def render(workload: Workload, kind: str) -> str:
    """One of :data:`KINDS`. Raises SettingsError for another."""
    makers = {"gramine": gramine, "vm": vm, "sandbox": sandbox}
    if kind not in makers:
        raise SettingsError(f"{kind!r} cannot be rendered; expected one of {', '.join(KINDS)}")
    return makers[kind](workload)
