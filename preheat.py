"""The command line, and nothing else: each subcommand parses, calls one function, and prints its answer."""

from __future__ import annotations

import click


@click.group()
@click.version_option(package_name="preheat")
def main() -> None:
    """Scale vLLM ahead of the load, place it where it fits, and replay what any policy would have cost."""


if __name__ == "__main__":
    main()
