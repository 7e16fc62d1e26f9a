"""Whatever is wrong with the file of `--config` is told at once, in sentences that say where."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import certifi
import pytest
import yaml

from autoscaler import config
from autoscaler.config import forbidden_files, load
from cluster.files import ConfigError
from tests.autoscaler.worlds import resource

DOCUMENT = """\
apiVersion: autoscaling.preheat.dev/v1alpha1
kind: VLLMAutoscaler
metadata: {name: NAME, namespace: inference}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: TARGET}
  maxReplicas: 8
  objectives: {ttftSeconds: 2, tpotSeconds: 0.06, attainment: 0.99}
  prometheus: {url: "http://prometheus.monitoring:9090"}
"""


def document(name: str = "llama", target: str = "vllm-llama") -> str:
    return DOCUMENT.replace("NAME", name).replace("TARGET", target)


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load(path)
    return refused.value.problems


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "autoscaler.yaml"


def test_several_documents_are_several_targets(file: Path) -> None:
    file.write_text("---\n".join(["# a comment\n", document("a", "x"), document("b", "y"), ""]))
    assert [resource.key for resource in load(file)] == ["inference/a", "inference/b"]


def test_a_missing_file_is_named(file: Path) -> None:
    assert problems_of(file) == (f"{file}: does not exist: check the path",)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == (f"{tmp_path}: is a directory: name a file",)


def test_an_unreadable_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, **_: object) -> str:  # root, as whom tests may run, reads every file
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    assert problems_of(file) == (f"{file}: may not be read by this user: give it the right to",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: write at least one VLLMAutoscaler"),
        ("---\n---\n# nothing\n", "is empty: write at least one VLLMAutoscaler"),
        ("a: [1,\nb: 2", "is not valid YAML at line 2, column 5: expected ',' or ']'"),
        ("a:\n\t- 1", "is not valid YAML at line 2, column 1: found character '\\t' that cannot start any token"),
        ("spec: {}\nspec: {}", "is not valid YAML at line 2, column 1: spec is written twice"),
        ("a: !!python/object:os.system x", "is not valid YAML at line 1, column 4: could not determine"),
        ("a: *nowhere", "is not valid YAML at line 1, column 4: found undefined alias 'nowhere'"),
        ("a: 2026-13-45", "is not valid YAML: month must be in 1..12"),
        ("\x00", "is not valid YAML: unacceptable character"),
        ("just text", "holds no fields: write apiVersion, kind, metadata and spec"),
        ("- a\n- b", "holds no fields: write apiVersion, kind, metadata and spec"),
    ],
)
def test_what_is_no_resource_is_refused_in_one_sentence(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    (problem,) = problems_of(file)
    assert problem.startswith(f"{file}: {sentence}")
    assert "\n" not in problem


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    assert problems_of(file) == (f"{file}: is not UTF-8 text: save it as UTF-8",)


def test_mistakes_of_several_documents_are_told_at_once_each_with_its_place(file: Path) -> None:
    second = document("b", "y").replace("maxReplicas: 8", "maxReplicas: 0")
    third = document("c", "z").replace("ttftSeconds", "ttftSecond")
    file.write_text("---\n".join([document("a", "x"), second, third]))
    problems = problems_of(file)
    assert problems[0].startswith(f"{file}, document 2: spec.maxReplicas is 0")
    assert any(problem.startswith(f"{file}, document 3: spec.objectives.ttftSecond is not") for problem in problems)


def test_two_documents_on_one_target_are_refused(file: Path) -> None:
    file.write_text(document("a") + "---\n" + document("b").replace("apps/v1,", "apps/v1beta2,"))
    assert problems_of(file) == (
        f"{file}: inference/a and inference/b both scale Deployment inference/vllm-llama: keep one, "
        "or they would fight over it",
    )


def test_two_documents_of_one_name_are_refused(file: Path) -> None:
    file.write_text(document("a", "x") + "---\n" + document("a", "y"))
    assert problems_of(file) == (f"{file}: two documents are named inference/a: rename one",)


def test_files_that_the_resource_names_are_looked_at(file: Path, tmp_path: Path) -> None:
    empty, no_certificate = tmp_path / "token", tmp_path / "ca.pem"
    empty.write_text("\n")
    no_certificate.write_text("hello")
    stated = yaml.safe_load(document())
    prometheus = stated["spec"]["prometheus"]
    prometheus |= {"caFile": str(no_certificate), "bearerTokenFile": str(empty)}
    prometheus |= {"certFile": str(tmp_path / "none"), "keyFile": str(tmp_path)}
    file.write_text(yaml.safe_dump(stated))
    start = "inference/llama: spec.prometheus"
    assert problems_of(file) == (
        f"{start}.bearerTokenFile: {empty}: is empty: write what it should hold into it",
        f"{start}.caFile: {no_certificate}: holds no certificate in PEM form: name the file of the authority",
        f"{start}.certFile: {tmp_path / 'none'}: does not exist: check the path",
        f"{start}.keyFile: {tmp_path}: is a directory: name a file",
    )
    prometheus.clear()
    prometheus |= {"url": "https://p", "caFile": certifi.where()}
    file.write_text(yaml.safe_dump(stated))
    assert len(load(file)) == 1


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A directory as Kubernetes mounts a volume: each file a link through `..data`."""
    mounted = tmp_path / "credentials"
    (mounted / "..2026_01_01").mkdir(parents=True)
    (mounted / "..2026_01_01" / "token").write_text("sesame")
    (mounted / "..data").symlink_to("..2026_01_01")
    (mounted / "token").symlink_to("..data/token")
    return mounted


def test_a_resource_of_the_cluster_may_name_the_files_that_are_mounted_for_it(credentials: Path) -> None:
    prometheus = {"url": "https://p", "bearerTokenFile": str(credentials / "token"), "caFile": f"{credentials}/ca"}
    assert [*forbidden_files(resource(prometheus=prometheus), credentials)] == []
    linked = credentials.parent / "linked"
    linked.symlink_to(credentials)
    prometheus = {"url": "https://p", "bearerTokenFile": str(linked / "token")}
    assert [*forbidden_files(resource(prometheus=prometheus), linked)] == []


@pytest.mark.parametrize(
    "path",
    ["{below}/out", "{below}/../secret", "{below}-of-others/token", "/proc/self/cwd/token", "token", "/proc/1/environ"],
)
def test_no_other_file_is_read_for_a_resource_of_the_cluster(
    credentials: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (credentials / "out").symlink_to("../secret")
    monkeypatch.chdir(credentials if path.startswith("/proc") else "/")
    named = path.format(below=credentials)
    prometheus = {"url": "https://p", "basicAuth": {"username": "u", "passwordFile": named}}
    (problem,) = forbidden_files(resource(prometheus=prometheus), credentials)
    assert problem == (
        f"inference/llama: spec.prometheus.basicAuth.passwordFile: {named}: is not below {credentials}, and no other "
        f"file is read for a resource: mount what this Prometheus asks for below {credentials}"
    )


def test_the_token_of_the_autoscalers_own_account_is_sent_to_nobody(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the directory is chosen so wide that it holds it."""
    monkeypatch.setattr(config, "OWN_ACCOUNT", credentials)
    prometheus = {"url": "https://p", "bearerTokenFile": str(credentials / "token")}
    (problem,) = forbidden_files(resource(prometheus=prometheus), Path("/"))
    assert problem == (
        f"inference/llama: spec.prometheus.bearerTokenFile: {credentials / 'token'}: is the autoscaler's own "
        "account's, which nobody is sent: mount what this Prometheus asks for below /"
    )


def test_the_example_of_these_tests_is_sound() -> None:
    assert resource().key == "inference/llama"
