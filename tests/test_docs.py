"""The documentation's code runs, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import call_cli

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "audit",
            "loop",
            "posterior",
            "learners",
            "robust",
            "consensus",
            "poison",
            "sites",
            "scale",
            "streams",
            "extending",
        )
    ),
]


@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = {"X": rng.normal(size=(60, 2)), "y": rng.integers(2, size=60), "X_new": rng.normal(size=(3, 2))}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


GROUP = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "numOfHosts",
    "rayStartParams",
    "template",
    "scaleStrategy",
}
FIELDS = {  # of KubeRay's v1 API, as documented
    "job": {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
    | {
        "submissionMode",
        "activeDeadlineSeconds",
        "runtimeEnvYAML",
        "clusterSelector",
        "submitterPodTemplate",
        "suspend",
    },
    "cluster": {"rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions"},
    "head": {"serviceType", "headService", "enableIngress", "rayStartParams", "template"},
    "container": {"name", "image", "env", "resources", "volumeMounts"},
}


def test_the_ray_job_is_one() -> None:
    """The manifest of docs/scale.md: known fields only, volumes that are there, options that the command has."""
    yaml = pytest.importorskip("yaml")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/scale.md").read_text(), re.S | re.M)
    job = yaml.safe_load(block)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) <= FIELDS["job"] and set(cluster) <= FIELDS["cluster"]
    head, *workers = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert set(head) <= FIELDS["head"] and all(set(group) <= GROUP for group in workers)
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert set(container) <= FIELDS["container"]
        assert [m["name"] for m in container["volumeMounts"]] == [v["name"] for v in pod["volumes"]]
    cpus = sum(
        group["replicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        for group in workers
    )
    words = spec["entrypoint"].split()
    assert words[:2] == ["labelwright", "predict"] and words[words.index("--workers") + 1] == str(cpus)
    options = call_cli("predict", "--help").stdout
    assert all(word in options for word in words if word.startswith("--"))
