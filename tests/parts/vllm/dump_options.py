"""Print every option of `vllm serve` as JSON, asked of vLLM's own argument parser.

Run by the venv's own Python, which has vLLM. A value is said in words, for it is compared and read, never run.
"""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from vllm.entrypoints.launchers.cli_args import make_arg_parser  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

# vLLM wraps what reads a value in functions of its own; what they wrap says more than their names.
OPTIONAL, REQUIRED = "_optional_type", "_parse_type"


def type_in_words(action: argparse.Action) -> str:
    """What a value is turned into: "int", "int or None", or the name of the function that reads it."""
    if action.nargs == 0:
        return "bool"
    if action.type is None:
        return "str"
    read: Any = action.type
    name = getattr(read, "__name__", str(read))
    suffix = " or None" if name == OPTIONAL else ""
    while name in (OPTIONAL, REQUIRED):
        read = inspect.getclosurevars(read).nonlocals["return_type"]
        name = getattr(read, "__name__", str(read))
    return f"{name.replace('<lambda>', 'function')}{suffix}"


def described(action: argparse.Action) -> dict[str, Any]:
    spellings = action.option_strings or [action.dest]
    # The first long spelling is the name; a switch's `--no-…` follows it.
    name = next((spelling for spelling in spellings if spelling.startswith("--")), spellings[0])
    return {
        "name": name,
        "aliases": [spelling for spelling in spellings if spelling != name],
        "type": type_in_words(action),
        # argparse's own word for how many values follow; 0 of a switch.
        "values": "1" if action.nargs is None else str(action.nargs),
        "choices": [str(choice) for choice in action.choices or ()],
        "default": str(action.default),
    }


parser = make_arg_parser(FlexibleArgumentParser())
options = [described(action) for action in parser._actions if action.dest != "help"]
print(json.dumps(sorted(options, key=lambda option: option["name"])))
