"""The autoscaler's identity in a cluster, made from the manifests that are shipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json

MANIFESTS = ROOT / "manifests" / "autoscaler"
ACCOUNT = "preheat-autoscaler"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


def shipped_role() -> Json:
    """The rules of both Roles as one."""
    texts = ((MANIFESTS / name).read_text() for name in ("role.yaml", "lease-role.yaml"))
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    return {"rules": [rule for document in documents for rule in document.get("rules", ())]}


def apply_shipped(control_plane: ControlPlane, folder: Path, namespace: str) -> Path:
    """`kubectl apply -k` of an overlay that only sets the namespace, as a user's would; its kubeconfig."""
    overlay = {"namespace": namespace, "resources": [os.path.relpath(MANIFESTS, folder)]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    control_plane.kubectl("apply", "-k", folder)
    return control_plane.kubeconfig_of_service_account(namespace, ACCOUNT)


@contextmanager
def one_writer(control_plane: ControlPlane) -> Iterator[None]:
    """With the admission policy as it is shipped; after it is switched off as `docs/cluster.md` says.

    Either takes the API server a moment, which is for the test to wait for. It is not deleted: the API server (1.36)
    finds no Lease for it any more when it, or its binding, comes again.
    """
    control_plane.kubectl("apply", "-k", MANIFESTS / "one-writer")
    try:
        yield
    finally:
        binding = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/preheat-one-writer"
        control_plane.api.patch(binding, {"spec": {"validationActions": ["Audit"]}})


def grant(control_plane: ControlPlane, namespace: str, rules: list[Json], *, to_namespace: str, name: str) -> None:
    """A Role with these rules, bound to the autoscaler's account of `to_namespace`."""
    control_plane.api.create(f"{RBAC}/{namespace}/roles", {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": to_namespace}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    control_plane.api.create(f"{RBAC}/{namespace}/rolebindings", binding)
