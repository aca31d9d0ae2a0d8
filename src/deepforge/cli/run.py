"""`deepforge run`: record a folder as a commit, run a pipeline of it, show it live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deepforge.cli import show
from deepforge.cli.main import SUCCEEDED
from deepforge.errors import InvalidProject, InvalidRequest

if TYPE_CHECKING:
    from deepforge.cli.client import Client
    from deepforge.projects.folder import FileEntry

_SETTINGS_FILE = "deepforge.toml"
_BATCH_BYTES = 8 * 1024 * 1024

_EPILOG = """\b
Examples:
  deepforge run examples/digits
  deepforge run examples/digits:digits --set hidden=128 --storage lab
  deepforge run . --input images=photos@3 --compute gpu-box
  deepforge run . --compute Train=gpu-box

\b
Ctrl-C asks for cancellation and waits; a second Ctrl-C leaves at once.
Ends with 0 for success, 1 if the execution failed, 130 if it was cancelled.
"""


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="FOLDER[:PIPELINE]")
@click.option(
    "--set",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="Value of a parameter of the pipeline. Repeatable.",
)
@click.option(
    "--input",
    "inputs",
    metavar="NAME=ARTIFACT[@VERSION]",
    multiple=True,
    help="Artifact for a parameter that is an input. Repeatable.",
)
@click.option("--storage", metavar="NAME", help="Where outputs go.  [default: local]")
@click.option(
    "--compute",
    "computes",
    metavar="[OPERATION=]NAME",
    multiple=True,
    help="Where jobs run, or where the jobs of one operation run. Repeatable.  [default: server]",
)
@click.option(
    "--detach", is_flag=True, help="Return at once; the server goes on. Needs DEEPFORGE_URL."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def run(
    target: str,
    attributes: tuple[str, ...],
    inputs: tuple[str, ...],
    storage: str | None,
    computes: tuple[str, ...],
    detach: bool,
    as_json: bool,
) -> int:
    """Run a pipeline of the project in FOLDER.

    Its files are recorded as a commit of the project first (what .gitignore ignores is left out), and
    that commit is what runs. Without PIPELINE the project must have only one.
    """
    folder, pipeline = _target(target)
    choices = {
        "pipeline": pipeline,
        "attributes": split_pairs(attributes, "--set", "NAME=VALUE"),
        "inputs": split_pairs(inputs, "--input", "NAME=ARTIFACT"),
        "storage": storage,
        "compute": _default_compute(computes),
        "computes": split_pairs(
            [one for one in computes if "=" in one], "--compute", "OPERATION=NAME"
        ),
    }
    return run_folder(folder, choices, detach=detach, as_json=as_json)


def run_folder(folder: Path, choices: dict[str, Any], *, detach: bool, as_json: bool) -> int:
    """Record the folder, run the pipeline, follow it to its end and return the exit code."""
    settings = _settings(folder)
    name = settings["name"]

    from deepforge.cli.client import connect
    from deepforge.cli.follow import follow
    from deepforge.cli.sciserver import tell_ends
    from deepforge.projects.folder import read_folder

    files = read_folder(folder)
    _tell_links(files)
    with connect(driving=not detach) as client:
        if detach:
            client.must_outlive_us()
        commit = _record(client, name, files)
        if named := _named(choices, settings):
            tell_ends(client, name=sorted(named))
        try:
            view = client.post(
                f"/projects/{quote(name, safe='')}/executions", {"commit": commit, **choices}
            )
        except InvalidProject as error:
            raise _with_folder(error, folder) from error
        if detach:
            show.print_json(show.result_json(view)) if as_json else click.echo(view["id"])
            return SUCCEEDED
        view = follow(client, view["id"])
    show.print_summary(view)
    if as_json:
        show.print_json(show.result_json(view))
    return show.exit_code(view)


def split_pairs(texts: Iterable[str], option: str, form: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE. Raises `click.BadParameter`."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not of the form {form}", param_hint=option)
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice", param_hint=option)
        pairs[name] = value
    return pairs


def _target(text: str) -> tuple[Path, str | None]:
    folder, colon, pipeline = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), None
    if not pipeline:
        raise InvalidRequest(f"{text!r} names no pipeline after the colon", part="target")
    return Path(folder), pipeline


def _default_compute(texts: Iterable[str]) -> str | None:
    plain = [one for one in texts if "=" not in one]
    if len(plain) > 1:
        raise click.BadParameter(
            f"{plain[0]} and {plain[1]} are both given for all operations", param_hint="--compute"
        )
    return plain[0] if plain else None


def _settings(folder: Path) -> dict[str, Any]:
    """What deepforge.toml says, as it stands there; a name is in it."""
    import tomllib

    path = folder / _SETTINGS_FILE
    if folder.is_file():
        raise InvalidRequest(
            f"{folder} is a file, not the folder of a project",
            part="target",
            hint=f"name the folder that holds {_SETTINGS_FILE}",
        )
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise InvalidRequest(f"there is no folder {folder}", part="target") from error
        raise _invalid(
            path,
            "is missing",
            f'a project has this file; one line is enough: name = "{_proposed(folder)}"',
        ) from error
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}", None) from error
    except ValueError as error:
        raise _invalid(path, f"is not valid TOML: {error}", None) from error
    name = settings.get("name")
    if not isinstance(name, str):
        raise _invalid(path, "has no name", f'add a line: name = "{_proposed(folder)}"')
    return settings


def _named(choices: Mapping[str, Any], settings: Mapping[str, Any]) -> set[str]:
    """The storages and computes that are chosen here, or by the project."""
    defaults = settings.get("defaults")
    named = [*choices.get("computes", {}).values()]
    for one in ("storage", "compute"):
        named.append(choices.get(one) or (isinstance(defaults, dict) and defaults.get(one)))
    return {one for one in named if isinstance(one, str)}


def _proposed(folder: Path) -> str:
    from deepforge.ids import slug

    return slug(folder.resolve().name)


def _invalid(path: Path, problem: str, hint: str | None) -> InvalidProject:
    finding = {"file": str(path), "message": problem}
    return InvalidProject(f"{path} {problem}", findings=[finding], hint=hint)


def _with_folder(error: InvalidProject, folder: Path) -> InvalidProject:
    """Name the files of the findings as the user sees them from here."""
    findings = [
        {**one, "file": str(folder / one["file"])} if one.get("file") else one
        for one in error.findings
    ]
    return InvalidProject(error.message, findings=findings, hint=error.hint)


def _tell_links(files: dict[str, FileEntry]) -> None:
    """Say what becomes of symbolic links, which a project does not keep as such."""
    links = [path for path, entry in files.items() if entry.is_link]
    if links:
        names = ", ".join(map(repr, links[:5])) + (f" and {len(links) - 5} more" * (len(links) > 5))
        click.echo(f"symbolic links are recorded as the files they lead to: {names}", err=True)


def _record(client: Client, name: str, files: dict[str, FileEntry]) -> str:
    """Send what the server does not have yet and return the commit of these files."""
    project = f"/projects/{quote(client.post('/projects', {'name': name})['name'], safe='')}"
    by_sha = {entry.sha: entry for entry in files.values()}
    missing = client.post(f"{project}/missing", {"blobs": list(by_sha)})["missing"]
    batch = b""
    for sha in missing:
        content = by_sha[sha].read()
        batch += sha.encode() + len(content).to_bytes(8, "big") + content
        if len(batch) >= _BATCH_BYTES:
            client.post(f"{project}/blobs", content=batch)
            batch = b""
    if batch:
        client.post(f"{project}/blobs", content=batch)
    tree = {path: {"blob": one.sha, "executable": one.executable} for path, one in files.items()}
    commit: str = client.post(f"{project}/commits", {"files": tree})["commit"]
    return commit
