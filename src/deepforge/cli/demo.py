"""`deepforge demo`: run the digits example that comes with the package."""

from __future__ import annotations

from pathlib import Path

import click

import deepforge
from deepforge.errors import ConfigError, NotFound

_NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}


@click.command()
@click.option("--set", "attributes", metavar="NAME=VALUE", multiple=True, help="As in `run`.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def demo(attributes: tuple[str, ...], as_json: bool) -> int:
    """Run the handwritten digits example: load, train, score, plot.

    It needs scikit-learn and matplotlib where the jobs run.
    """
    from importlib.util import find_spec

    from deepforge.cli.run import run_folder, split_pairs

    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"the example needs {' and '.join(missing)}",
            hint="pip install 'deepforge[demo]', or in a checkout: make demo",
        )
    choices = {"attributes": split_pairs(attributes, "--set", "NAME=VALUE")}
    code = run_folder(_example("digits"), choices, detach=False, as_json=as_json)
    if code == 0:
        click.echo("\nlook at it:  deepforge artifacts get confusion confusion.png", err=True)
    return code


def _example(name: str) -> Path:
    """Find an example in the installed package, else in the checkout around it."""
    package = Path(deepforge.__file__).parent
    for folder in (package / "examples" / name, package.parents[1] / "examples" / name):
        if (folder / "deepforge.toml").is_file():
            return folder
    raise NotFound(f"the example {name!r} is not part of this installation")
