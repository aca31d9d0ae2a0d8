"""The documentation is true: complete, its commands exist, its links lead somewhere."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import click
import pytest

from deepforge import plugins
from deepforge.errors import DeepForgeError
from deepforge.settings import declared

VARIABLE = re.compile(r"[\"'`\s](DEEPFORGE_[A-Z][A-Z_]*[A-Z])\b(?!_)")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"(?ms)^[ \t]*```(\w+)\n(.*?)^[ \t]*```")


@pytest.fixture(scope="module")
def reference(root: Path) -> ModuleType:
    path = root / "docs" / "write_reference.py"
    spec = importlib.util.spec_from_file_location("write_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(project_files: list[Path]) -> dict[Path, str]:
    return {path: path.read_text() for path in project_files if path.suffix == ".md"}


@pytest.mark.parametrize("name", ["cli.md", "adapters.md", "errors.md"])
def test_the_written_reference_is_that_of_the_code(
    root: Path, reference: ModuleType, name: str
) -> None:
    written = (root / "docs" / "reference" / name).read_text()

    assert written == reference.pages()[name], "run .venv/bin/python docs/write_reference.py"


def test_the_reference_names_every_command_and_option(root: Path, reference: ModuleType) -> None:
    text = (root / "docs/reference/cli.md").read_text()
    for context, command in reference.commands():
        assert f"\n## {context.command_path}\n" in text
        assert command.get_short_help_str(), context.command_path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{context.command_path} {parameter.name} has no help"
                assert parameter.opts[-1] in text


def test_every_error_code_is_explained(root: Path) -> None:
    text = (root / "docs/reference/errors.md").read_text()
    codes = {kind.code for kind in DeepForgeError.__subclasses__()}

    assert not [code for code in codes if f"| `{code}` |" not in text]


@pytest.mark.parametrize("port", ["storage", "compute"])
def test_every_adapter_and_setting_is_explained(root: Path, port: plugins.Port) -> None:
    text = (root / "docs/reference/adapters.md").read_text()
    for info in plugins.adapters(port):
        assert isinstance(info, plugins.AdapterInfo)
        section = text.split(f"## {port.capitalize()}")[1].split(f"### {info.id}\n")[1]
        section = section.split("\n#")[0]
        for one in declared(info.settings_class()):
            assert f"| `{one.name}` |" in section
            assert one.sentence in section


def test_every_environment_variable_is_explained(root: Path) -> None:
    text = (root / "docs/reference/environment.md").read_text()
    used: set[str] = set()
    for path in (root / "src").rglob("*.py"):
        if "testing" not in path.parts:
            used |= set(VARIABLE.findall(path.read_text()))
    used = {name for name in used if "__" not in name}  # those are examples of settings
    assert "DEEPFORGE_HOME" in used

    assert not [name for name in sorted(used) if f"`{name}`" not in text]


def test_verbs_in_the_docs_exist_in_the_makefile(root: Path, pages: dict[Path, str]) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (root / "Makefile").read_text()))
    for path, text in pages.items():
        spoken = set(re.findall(r"(?:`|^\$ |^    )make ([a-z]+)", text, re.MULTILINE))
        assert spoken <= targets, path


def test_relative_links_lead_somewhere(pages: dict[Path, str]) -> None:
    broken = [
        f"{path}: {link}"
        for path, text in pages.items()
        for link in LINK.findall(text)
        if "://" not in link
        and not link.startswith(("#", "mailto:"))
        and not (path.parent / link.partition("#")[0]).exists()
    ]

    assert not broken, "\n" + "\n".join(broken)


def test_python_examples_compile(pages: dict[Path, str]) -> None:
    for path, text in pages.items():
        for language, code in CODE.findall(text):
            if language in ("python", "py"):
                ast.parse(textwrap.dedent(code), filename=str(path))


def test_commands_in_the_docs_are_understood(pages: dict[Path, str], reference: ModuleType) -> None:
    """Every `deepforge …` line of a console block names a command and options that exist."""
    known = {
        context.command_path: {
            option
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        | {"--help", "-h"}
        for context, command in reference.commands()
    }
    for path, text in pages.items():
        for language, code in CODE.findall(text):
            if language != "console":
                continue
            for line in re.findall(r"(?m)^\$ (?:.*\| )?(deepforge (?:[^\\\n]|\\\n)*)", code):
                words = line.replace("\\\n", " ").split()
                command = _longest(words, known)
                options = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert options <= known[command], f"{path}: {line}"


def test_a_systemd_unit_starts_what_exists_and_leaves_jobs_alone(
    pages: dict[Path, str], reference: ModuleType
) -> None:
    known = {context.command_path: command for context, command in reference.commands()}
    units = [
        (path, code)
        for path, text in pages.items()
        for language, code in CODE.findall(text)
        if language == "ini"
    ]
    assert units
    for path, code in units:
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
        unit.read_string(code)
        program, command, *arguments = unit["Service"]["ExecStart"].split()
        context = click.Context(known[f"{Path(program).name} {command}"])
        context.command.parse_args(context, arguments)
        assert unit["Service"]["KillMode"] == "process", path


def _longest(words: list[str], known: dict[str, set[str]]) -> str:
    for count in range(len(words), 0, -1):
        if " ".join(words[:count]) in known:
            return " ".join(words[:count])
    raise AssertionError(f"no command begins with {words[0]!r}")
