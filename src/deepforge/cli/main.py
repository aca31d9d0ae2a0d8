"""The command `deepforge`: what it can do, and how errors become words and exit codes."""

from __future__ import annotations

import os
import sys

import click

import deepforge
from deepforge.cli.lazy import LazyGroup
from deepforge.errors import DeepForgeError

SUCCEEDED, FAILED, USAGE, SETUP, NOT_FOUND, TAKEN, CANCELLED = 0, 1, 2, 3, 4, 5, 130

EXIT_CODES = {
    "invalid_request": USAGE,
    "invalid_project": USAGE,
    "not_supported": USAGE,
    "config_error": SETUP,
    "auth_error": SETUP,
    "forbidden": SETUP,
    "unavailable": SETUP,
    "outcome_unknown": SETUP,
    "no_capacity": SETUP,
    "rate_limited": SETUP,
    "not_found": NOT_FOUND,
    "already_exists": TAKEN,
    "conflict": TAKEN,
}
"""The exit code of each error code; any other is 1, as is an execution that failed."""

COMMANDS = {
    "run": ("deepforge.cli.run:run", "Run a pipeline of a project's folder."),
    "executions": ("deepforge.cli.executions:executions", "See, stop and repeat what ran."),
    "artifacts": ("deepforge.cli.artifacts:artifacts", "Named data: list, read, store."),
    "storage": ("deepforge.cli.connections:storage", "Where data lie: add, check, remove."),
    "compute": ("deepforge.cli.connections:compute", "Where jobs run: add, check, remove."),
    "sciserver": ("deepforge.cli.sciserver:sciserver", "Your SciServer account: link, status."),
    "users": ("deepforge.cli.users:users", "Who may use a server: add, change, disable."),
    "login": ("deepforge.cli.tokens:login", "Get an access token for a user and a password."),
    "tokens": ("deepforge.cli.tokens:tokens", "Access tokens: create, list, revoke."),
    "worker": ("deepforge.cli.worker:worker", "Run jobs of a server on this machine."),
    "workers": ("deepforge.cli.workers:workers", "Machines that run jobs: list, show, forget."),
    "pools": ("deepforge.cli.pools:pools", "Workers that users share: add, change, remove."),
    "start": ("deepforge.cli.start:start", "Start a server."),
    "demo": ("deepforge.cli.demo:demo", "Run the handwritten digits example."),
}

_EPILOG = """\b
Without DEEPFORGE_URL no server is needed: everything happens in this process,
and DEEPFORGE_HOME holds what is kept.
"""


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(deepforge.__version__, message="deepforge %(version)s")
def cli() -> None:
    """Design machine-learning pipelines and run them on your own compute, with data in your own
    storage."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code. Errors are told on standard error.

    With `--json` among the arguments an error is also the last line of standard output, whichever
    part of the command it came from.
    """
    wants_json = "--json" in arguments
    try:
        result = cli.main(args=arguments, prog_name="deepforge", standalone_mode=False)
        if sys.stdout is not None:  # None: it was closed before we began
            sys.stdout.flush()
        return result if isinstance(result, int) else SUCCEEDED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help, usage included
        _print_json_error(wants_json, "usage", "a command is missing", None, {})
        return USAGE
    except click.ClickException as error:
        _show_usage(error)
        _print_json_error(wants_json, "usage", error.format_message(), None, {})
        return USAGE
    except DeepForgeError as error:
        _show(error)
        _print_json_error(wants_json, error.code, error.message, error.hint, error.details())
        return EXIT_CODES.get(error.code, FAILED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return CANCELLED
    except BrokenPipeError:
        _silence_output()  # whoever read our output has seen enough
        return FAILED
    except OSError as error:  # a disk that is full, a name that is too long
        about = f" {error.filename!r}" if error.filename else ""
        _show(DeepForgeError(f"the system refused{about}: {error.strerror or error}"))
        _silence_output()
        return FAILED


def _silence_output() -> None:
    """What is still buffered must not complain at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_usage(error: click.ClickException) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.format_message()}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.ctx.command_path} --help", err=True)


def _show(error: DeepForgeError) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    details = error.details()
    for finding in details.get("findings", ()):
        click.echo(f"  {_finding(finding)}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True)


def _finding(finding: dict[str, object]) -> str:
    place = ":".join(str(finding[part]) for part in ("file", "line") if finding.get(part))
    hint = f" ({finding['hint']})" if finding.get("hint") else ""
    return f"{place}: {finding['message']}{hint}" if place else f"{finding['message']}{hint}"


def _print_json_error(
    wanted: bool, code: str, message: str, hint: str | None, details: dict[str, object]
) -> None:
    if not wanted:
        return
    import json

    body = {"code": code, "message": message, "hint": hint, "details": details}
    click.echo(json.dumps({"error": body}, default=str))
