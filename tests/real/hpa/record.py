"""The real HPA controller's decisions, as kept in tests/data/hpa for the tests of our re-implementation.

`python -m tests.real.hpa.record` plays every scenario to a real control plane and writes all files anew;
`… record NAME…` only those.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.checkout import ROOT
from tests.parts.progress import say
from tests.real.hpa.recording import studio
from tests.real.hpa.scenarios import SCENARIOS
from tests.real.hpa.writing import UnsteadyError, save

RECORDINGS = ROOT / "tests" / "data" / "hpa"


def main(names: Sequence[str]) -> int:
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    failed = 0
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder)) as there:
        for scenario, recorded in there.record(chosen):
            try:
                path = save(recorded.result(), RECORDINGS)
                say(f"{scenario.name}: {path}")
            except (UnsteadyError, AssertionError) as error:
                failed += 1
                say(f"{scenario.name} was not recorded: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
