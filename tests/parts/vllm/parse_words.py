"""What vLLM's own argument parser makes of lists of words: JSON in, JSON out, null for what it refuses.

Run by the venv's own Python, which has vLLM.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

from vllm.entrypoints.launchers.cli_args import make_arg_parser  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

parser = make_arg_parser(FlexibleArgumentParser())


def parsed(words: list[str]) -> dict[str, Any] | None:
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return dict(vars(parser.parse_args(words)))
        except (SystemExit, ValueError):
            return None


print(json.dumps([parsed(words) for words in json.load(sys.stdin)], default=str))
