"""How a container starts vLLM, in every form that people write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.placement.command_line import LONGEST, started_vllm
from policies.placement.demand import Container

VLLM = "vllm/vllm-openai:v0.11.0"


def options(
    command: tuple[str, ...] = (),
    args: tuple[str, ...] = (),
    image: str = "registry.example/serving:1",
    env: dict[str, str | None] | None = None,
) -> tuple[str, ...] | None:
    started = started_vllm(Container("c", image=image, command=command, args=args, env=env or {}))
    return None if started is None else started.options


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (("vllm", "serve", "M", "-tp", "2"), ()),
        (("vllm", "serve"), ("M", "-tp", "2")),
        (("/usr/local/bin/vllm", "serve"), ("M", "-tp", "2")),
        ((), ("vllm", "serve", "M", "-tp", "2")),
        (("python3", "-m", "vllm.entrypoints.openai.api_server"), ("M", "-tp", "2")),
        (("python", "-u", "-m", "vllm.entrypoints.openai.api_server", "M"), ("-tp", "2")),
        (("python3", "-m", "vllm", "serve", "M", "-tp", "2"), ()),
        (("python3", "/app/vllm/entrypoints/openai/api_server.py"), ("M", "-tp", "2")),
        (("tini", "--", "vllm", "serve", "M", "-tp", "2"), ()),
        (("sh", "-c", "vllm serve M -tp 2"), ()),
        (("/bin/bash", "-c"), ("vllm serve M -tp 2",)),
        (("/bin/sh", "-ec", "exec vllm serve 'M' -tp \"2\""), ()),
        (("bash", "-lc"), ("source /opt/env/bin/activate && vllm serve M -tp 2 2>&1 | tee /var/log/vllm.log",)),
        (("sh", "-c", "sleep 3; nohup vllm serve M -tp 2 &"), ()),
        (("sh", "-c", "vllm serve \\\n  M \\\n  -tp 2   # two of them\necho done\n"), ()),
        (("sh", "-c", "# vllm serve X -tp 9\nset -e\nvllm serve M -tp 2\n"), ()),
        (("sh", "-c", "if true; then vllm serve M -tp 2; fi"), ()),
        (("sh", "-c", "MODEL=M\nexport TP=2\nvllm serve $MODEL -tp ${TP}"), ()),
        (("sh", "-c", "HF_HUB_OFFLINE=1 vllm serve M -tp 2"), ()),
        (("sh", "-c", "vllm serve M -tp ${TP:-2}"), ()),
        (("sh", "-c", "OPTS='M -tp 2'\nvllm serve $OPTS"), ()),
    ],
)
def test_the_words_after_the_server_are_its_options(command: tuple[str, ...], args: tuple[str, ...]) -> None:
    found = options(command, args)
    assert found is not None
    assert [word for word in found if word != "fi"] == ["M", "-tp", "2"]


def test_bare_args_are_options_where_the_image_is_vllms() -> None:
    for image in (VLLM, "ghcr.io/acme/vllm:1", "docker.io/rocm/vllm-dev@sha256:00", "vllm-openai"):
        assert options(args=("--model", "M"), image=image) == ("--model", "M")
    assert options(args=("--model", "M"), image="acme/tgi:1") is None


def test_a_script_of_vllms_image_passes_on_options_that_tell_themselves() -> None:
    found = options(("/entrypoint.sh",), ("start", "--model=M", "-tp", "2"), image=VLLM)
    assert found == ("--model=M", "-tp", "2")


def test_what_starts_something_else_is_not_vllm() -> None:
    assert options(("python", "-m", "http.server"), image="python:3.12") is None
    assert options(("sh", "-c", "sleep infinity"), image=VLLM) is None
    assert options(("ray", "start", "--block"), image=VLLM) is None
    assert options(("vllm", "bench", "serve"), image="x") is None


def test_variables_of_the_container_are_put_in() -> None:
    env: dict[str, str | None] = {"TP": "4", "MODEL": "org/$(NAME)", "NAME": "m", "SIZE": "$(TP)"}
    found = options(("vllm", "serve", "$(MODEL)", "-tp", "$(SIZE)", "--seed", "$$(X)"), env=env)
    # As the kubelet does it: a variable may use those before it, and `$$` is a dollar.
    assert found == ("org/$(NAME)", "-tp", "4", "--seed", "$(X)")


def test_what_is_not_seen_stays_as_it_is_written() -> None:
    found = options(("sh", "-c", "vllm serve $MODEL -tp $(nvidia-smi -L | wc -l)"), env={"MODEL": None})
    assert found is not None
    assert found[0] == "$MODEL"


def test_the_value_for_a_variable_that_is_not_set_is_not_that_of_one_whose_value_is_not_seen() -> None:
    assert options(("sh", "-c", "vllm serve M -tp ${TP:-1}"), env={"TP": None}) == ("M", "-tp", "${TP:-1}")
    assert options(("sh", "-c", "TP=${TP:-1}; vllm serve M -tp $TP"), env={"TP": None}) == ("M", "-tp", "${TP:-1}")
    assert options(("sh", "-c", "vllm serve M -tp ${TP:-1}"), env={"TP": ""}) == ("M", "-tp", "1")


def test_a_leader_of_a_group_serves_after_it_started_ray() -> None:
    script = "ray start --head --port=6379; python3 -m vllm.entrypoints.openai.api_server --model M -tp 8 -pp 2"
    assert options(("sh", "-c", script), image=VLLM) == ("--model", "M", "-tp", "8", "-pp", "2")


def test_variables_that_hold_others_twice_grow_no_longer_than_a_word_may_be() -> None:
    doubled: dict[str, str | None] = {"V0": "x" * 10, **{f"V{n + 1}": f"$(V{n})$(V{n})" for n in range(16)}}
    found = options(args=("--model", "$(V16)"), image=VLLM, env=doubled)
    assert found is not None
    assert "$(V" in found[1]
    assert len(found[1]) <= LONGEST
    found = options(("sh", "-c", "A=xxxxxxxxxx\n" + "A=$A$A\n" * 16 + "vllm serve $A"))
    assert found is not None
    assert len(found[0]) <= LONGEST


def test_a_quotation_without_its_end_is_looked_at_once() -> None:
    """Each of its lines with all before it would take the better part of an hour."""
    assert options(("sh", "-c", "vllm serve M\necho '\n" + "a\n" * 60_000)) == ("M",)


def test_a_script_that_is_longer_than_linux_starts_is_none() -> None:
    assert options(("sh", "-c", "vllm serve M\n" + "#" * LONGEST)) is None


@given(st.lists(st.text(max_size=20), max_size=4), st.lists(st.text(max_size=20), max_size=4), st.text(max_size=60))
def test_any_container_is_read(command: list[str], args: list[str], script: str) -> None:
    options(tuple(command), tuple(args), image=VLLM)
    options(("sh", "-c", script), image=VLLM)
    options(("sh", "-c", f"vllm serve {script}"), image=VLLM)
