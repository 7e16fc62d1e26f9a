"""The file of --config is used whole, or refused with one sentence for each thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.files import ConfigError
from policies.placement.supply import Links
from scheduler_extender.config import load


def refused(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        load(path)
    return [problem.removeprefix(f"{path}: ") for problem in refusal.value.problems]


def test_without_a_file_all_has_defaults() -> None:
    made = load(None)
    assert made.settings.touch.enabled
    assert made.settings.touch.seconds == 10
    assert made.products.find("NVIDIA-H100-80GB-HBM3") is not None


def test_settings_and_tables_are_laid_over_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "products.yaml").write_text("products:\n- {match: Our-Board, links: groups, group: 2}\n")
    (tmp_path / "models.json").write_text(
        '{"models": [{"name": "ours/tiny", "config": {"hidden_size": 64, "num_hidden_layers": 2, '
        '"num_attention_heads": 4, "vocab_size": 100, "intermediate_size": 128, "model_type": "llama"}}]}'
    )
    config = tmp_path / "extender.yaml"
    config.write_text(
        "placement: {nvlink: prefer, mix: {1: 0.5, 8: 0.5}}\nproductsFile: products.yaml\nmodelsFile: models.json\n"
        "touch: {seconds: 30, schedulers: [preheat]}\n"
    )
    made = load(config)
    assert made.settings.placement.nvlink == "prefer"
    assert made.settings.touch.schedulers == ("preheat",)
    product = made.products.find("Our-Board")
    assert product is not None
    assert product.links is Links.GROUPS
    assert made.models.find("ours/tiny") is not None
    assert made.files == (config, tmp_path / "products.yaml", tmp_path / "models.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("touch: {second: 3}", "touch.second is not a field: did you mean seconds?"),
        ("placement: {nvlinks: prefer}", "placement.nvlinks is not a field: did you mean nvlink?"),
        ("placement: {nvlink: maybe}", "placement.nvlink is \"maybe\": it must be 'require', 'prefer' or 'ignore'"),
        ("touch: {seconds: 0}", "touch.seconds is 0: it must be greater than or equal to 1"),
        ("- a", "the document is"),
        ("a: [", "is not valid YAML"),
        ("", "is empty: write at least `placement: {}`"),
        ("a: 1\n---\nb: 2", "holds 2 documents"),
        ("productsFile: none.yaml", "none.yaml: does not exist: check the path"),
        ("modelsFile: none.json", "none.json: does not exist: check the path"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "extender.yaml"
    config.write_text(text)
    problems = refused(config)
    assert len(problems) == 1
    assert said in problems[0]


def test_a_table_with_an_unknown_link_class_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "products.yaml").write_text("products:\n- {match: Our-Board, links: rope}\n")
    config = tmp_path / "extender.yaml"
    config.write_text("productsFile: products.yaml\nmodelsFile: none.json\n")
    links, missing = refused(config)
    assert "links is 'rope': choose one of cube, full mesh, groups, none, unknown" in links
    assert "none.json: does not exist" in missing
