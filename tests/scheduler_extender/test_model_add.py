"""A model's own config.json becomes a row of the table that the extender reads, or one sentence says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import preheat
from scheduler_extender.config import load

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def added(folder: Path, config: object, *options: str) -> str:
    """What the command says, its table in the folder."""
    file = folder / "config.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    result = CliRunner().invoke(preheat.main, ["model", "add", str(file), "--table", f"{folder}/models.json", *options])
    assert result.exit_code in (0, 2), result.output
    (line,) = result.output.splitlines()
    return line.replace(f"{folder}/", "")


def test_the_extender_knows_what_was_added(tmp_path: Path) -> None:
    said = added(tmp_path, LLAMA, "--name", "ours/eight")
    assert said == (
        "models.json: added ours/eight: 8.03 billion parameters, 15.0 GiB of weights, "
        "128 KiB of cache a token with TP 1, a context of 131072 tokens"
    )
    added(tmp_path, LLAMA | {"num_hidden_layers": 16, "_name_or_path": "ours/four"})
    config = tmp_path / "extender.yaml"
    config.write_text("modelsFile: models.json\n")
    eight, four = (load(config).models.find(name) for name in ("ours/eight", "ours/four"))
    assert eight is not None
    assert four is not None
    assert (eight.layers, four.layers) == (32, 16)


def test_a_model_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    added(tmp_path, LLAMA, "--name", "ours/eight")
    assert "models.json: replaced ours/eight" in added(tmp_path, LLAMA, "--name", "ours/eight", "--weights-gib", "5")
    (row,) = json.loads((tmp_path / "models.json").read_text())["models"]
    assert row == {"name": "ours/eight", "source": "config.json", "config": LLAMA, "weightsGib": 5.0}


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (LLAMA, (), "does not say the model's name: give the one that pods serve it by with --name"),
        ("{", ("--name", "a"), "is not JSON"),
        ("[]", ("--name", "a"), "is JSON, but not an object: name the config.json of a checkpoint"),
        (LLAMA | {"hidden_size": None}, ("--name", "a"), "config.json: model a: "),
        ({"model_type": "new"}, ("--name", "a"), "state the size of its checkpoint with --weights-gib"),
        (LLAMA, ("--name", "a", "--weights-gib", "-1"), "weightsGib is -1.0: it must be a number above 0"),
        (LLAMA, ("--name", "a", "--table", "models.yaml"), "is written as JSON: name a file that ends in .json"),
        (LLAMA, ("--name", "a", "--table", "none/models.json"), "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path, config: object, options: tuple[str, ...], said: str
) -> None:
    assert said in added(tmp_path, config, *options)
    assert not (tmp_path / "models.json").exists()


def test_a_table_that_is_none_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text('{"rows": []}')
    assert "a table of models is an object with a list `models`" in added(tmp_path, LLAMA, "--name", "a")
    assert (tmp_path / "models.json").read_text() == '{"rows": []}'
