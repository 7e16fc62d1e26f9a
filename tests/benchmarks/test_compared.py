from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.parts import compared
from simulations.laboratory.settings import Settings
from simulations.laboratory.sweep import FILE
from simulations.traces import shipped_trace


def test_what_other_code_found_is_not_told_and_what_the_same_code_found_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Settings(engine="llama2-7b_a40_tp1", slo_ttft=3, slo_tpot=0.1, max=4, start=2)
    scenario = one.scenario(shipped_trace().until(60))

    def kept_of(code: str) -> list[str]:
        monkeypatch.setattr(compared, "CODE", code)
        compared.compared([scenario], ("hpa",), tmp_path, 1)
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob(FILE))

    assert kept_of("old") == [f"old/{FILE}"]
    assert kept_of("new") == [f"new/{FILE}", f"old/{FILE}"]
    assert kept_of("old") == [f"new/{FILE}", f"old/{FILE}"]
    for path in tmp_path.rglob(FILE):
        assert len(path.read_text().splitlines()) == 1


def test_code_is_known_by_what_its_files_hold_and_not_by_what_was_compiled_of_them(tmp_path: Path) -> None:
    one, compiled = tmp_path / "law" / "one.py", tmp_path / "law" / "__pycache__" / "one.pyc"
    compiled.parent.mkdir(parents=True)
    one.write_text("PRIOR = 0.5")
    before = compared.digest([tmp_path / "law"])
    compiled.write_text("bytes")
    one.touch()
    assert compared.digest([tmp_path / "law"]) == before
    one.write_text("PRIOR = 0.7")
    changed = compared.digest([tmp_path / "law"])
    one.rename(one.with_name("other.py"))
    assert len({before, changed, compared.digest([tmp_path / "law"])}) == 3
