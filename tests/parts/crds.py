"""The peers' custom resources, generated from their own Go API packages: examples are validated against them.

KEDA, the Prometheus operator, LeaderWorkerSet, the Vertical Pod Autoscaler and Karpenter, each by the pinned
module of `modules/crds`. What was generated lies beside the generator in the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.parts import build
from tests.parts.progress import ProgressError, run_with_progress

PACKAGES = {
    "github.com/kedacore/keda/v2/apis/keda/v1alpha1": (
        "keda.sh_scaledobjects.yaml",
        "keda.sh_triggerauthentications.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1": (
        "monitoring.coreos.com_podmonitors.yaml",
        "monitoring.coreos.com_prometheusrules.yaml",
        "monitoring.coreos.com_servicemonitors.yaml",
    ),
    "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1": (
        "autoscaling.k8s.io_verticalpodautoscalers.yaml",
    ),
    "sigs.k8s.io/karpenter/pkg/apis/v1": ("karpenter.sh_nodepools.yaml",),
    "sigs.k8s.io/lws/api/leaderworkerset/v1": ("leaderworkerset.x-k8s.io_leaderworkersets.yaml",),
}
"""By package, the kinds of it that manifests here use."""

OPTIONS = "crd:maxDescLen=0,allowDangerousTypes=true,generateEmbeddedObjectMeta=true"
"""Without descriptions, most of a schema's size; with labels in pod templates, as LeaderWorkerSet has them."""


def generated() -> list[Path]:
    """A file a kind, made now if they are not there yet."""
    home = build.ensure(build.CRDS)
    there = home / f"kinds-{hashlib.sha256(repr((OPTIONS, PACKAGES)).encode()).hexdigest()[:8]}"
    if not there.is_dir():
        with build.alone(build.cache() / "lock"):
            if not there.is_dir():  # whoever held the lock may have made them
                _generate(home / "controller-gen", there)
    return sorted(there.iterdir())


def _generate(generator: Path, there: Path) -> None:
    go = Path(build.find_go())
    environment = build.go_environment()
    environment["PATH"] = f"{go.parent}{os.pathsep}{environment.get('PATH', '')}"  # it asks Go for the packages
    with tempfile.TemporaryDirectory(dir=build.cache()) as folder:
        chosen = Path(folder) / "chosen"
        chosen.mkdir()
        for package, files in PACKAGES.items():
            # Of the VPA's kinds one has a map with numbers for keys, which fails the run after the others were
            # written: what counts is whether ours are there.
            command = [str(generator), OPTIONS, f"paths={package}", f"output:crd:dir={folder}/all"]
            try:
                run_with_progress(f"crds: {package}", command, where=build.MODULES / "crds", env=environment)
            except ProgressError:
                if not all((Path(folder) / "all" / name).exists() for name in files):
                    raise
            for name in files:
                shutil.copy(Path(folder) / "all" / name, chosen / name)
        chosen.rename(there)
