"""`deepforge storage` and `deepforge compute`: named connections, and the options of adapters."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deepforge.cli import show
from deepforge.cli.main import FAILED, SUCCEEDED
from deepforge.errors import AuthError, ConfigError, DeepForgeError, InvalidRequest

if TYPE_CHECKING:
    from deepforge.cli.client import Client
    from deepforge.plugins import AdapterInfo, Broken, Port
    from deepforge.settings import Choices, Setting

_DEEP_CHECK_S = 1800.0
_VERY_LIKE = 0.85

_EXAMPLES = {
    ("storage", "s3"): """\b
Examples:
  # Amazon S3; the secret key is asked for
  deepforge storage add s3 lab --endpoint-url https://s3.eu-central-1.amazonaws.com \\
      --region eu-central-1 --bucket lab-data --access-key-id AKIA... --secret-access-key -
  # any other service; the secret key comes from a file
  deepforge storage add s3 lab --endpoint-url https://s3.example.org --bucket lab-data \\
      --access-key-id me --secret-access-key - < key.txt
  # prove that it works
  deepforge storage check lab --deep
""",
}

_SECRETS_EPILOG = "A dash as the value of a secret reads it from standard input, or asks for it."


class _Add(click.Group):
    """Has one command for each adapter that is installed, with the adapter's settings as options."""

    def __init__(self, port: Port, help: str) -> None:
        super().__init__("add", help=help)
        self.port = port

    def list_commands(self, ctx: click.Context) -> list[str]:
        from deepforge import plugins

        return [info.id for info in plugins.adapters(self.port)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from deepforge import plugins

        for info in plugins.adapters(self.port):
            if info.id == cmd_name:
                return (
                    _broken(info)
                    if isinstance(info, plugins.Broken)
                    else _add_command(self.port, info)
                )
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from deepforge import plugins

        rows = [
            (
                info.id,
                f"broken: {info.reason}" if isinstance(info, plugins.Broken) else info.summary,
            )
            for info in plugins.adapters(self.port)
        ]
        with formatter.section("Adapters"):
            formatter.write_dl(rows)


_SECRET_HELP = """Replace one secret of a {port}, such as `password`.

It is asked for, or read as a line of standard input. What runs goes on with it."""


def _group(port: Port, things: str, purpose: str) -> click.Group:
    group = click.Group(
        port, help=f"{purpose}\n\nA {port} is an adapter plus your settings, under a name."
    )
    group.add_command(
        _Add(port, f"Add a {port}: choose an adapter, give it a name and its settings.")
    )

    @group.command("list", help=f"List {things}.")
    @show.json_option
    def list_connections(as_json: bool) -> None:
        from deepforge.cli.client import connect

        with connect() as client:
            found = list(client.items(f"/connections/{port}"))
        if as_json:
            show.print_json(found)
            return
        rows = [(one["name"], one["adapter"], _summary(one)) for one in found]
        show.print_table(("name", "adapter", "settings"), rows)

    @group.command("check", help=f"Prove that a {port} works, or say in plain words why not.")
    @click.argument("name")
    @click.option("--deep", is_flag=True, help="Use all of it, in a scratch place.")
    @show.json_option
    def check(name: str, deep: bool, as_json: bool) -> int:
        from deepforge.cli.client import connect

        with connect() as client:
            answer = client.post(
                f"/connections/{port}/{quote(name, safe='')}/check",
                {"deep": deep},
                timeout_s=_DEEP_CHECK_S,
            )
        if as_json:
            show.print_json(answer)
        else:
            _print_checks(name, answer)
        return SUCCEEDED if answer["ok"] else FAILED

    @group.command("choices", help=f"Show what the service of a {port} offers for its settings.")
    @click.argument("name")
    @show.json_option
    def choices(name: str, as_json: bool) -> None:
        from deepforge.cli.client import connect

        with connect() as client:
            answer = client.get(f"/connections/{port}/{quote(name, safe='')}/choices")
        if answer["problem"]:
            raise _problem(answer)
        if as_json:
            show.print_json(answer["items"])
            return
        if not answer["items"]:
            click.echo(f"the service of {name} offers no choices", err=True)
        rows = [
            (one["setting"], each["value"], each["note"])
            for one in answer["items"]
            for each in one["offered"] or [{"value": "", "note": "nothing is offered"}]
        ]
        show.print_table(("setting", "value", "note"), rows)

    @group.command("secret", help=_SECRET_HELP.format(port=port))
    @click.argument("name")
    @click.argument("secret")
    def replace_secret(name: str, secret: str) -> None:
        from deepforge.cli.client import connect
        from deepforge.cli.users import read_password

        value = read_password(f"{secret} of {name}")
        with connect() as client:
            client.patch(
                f"/connections/{port}/{quote(name, safe='')}", {"secrets": {secret: value}}
            )
        click.echo(
            f"{secret} of {name} is replaced; prove it: deepforge {port} check {name}", err=True
        )

    return group


def _forget(port: Port, name: str, **query: Any) -> None:
    from deepforge.cli.client import connect

    with connect() as client:
        client.delete(f"/connections/{port}/{quote(name, safe='')}", **query)
    click.echo(f"{name} is forgotten", err=True)


storage = _group("storage", "storages", "Where data lie: add, check, remove.")
compute = _group("compute", "computes", "Where jobs run: add, check, remove.")


@storage.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if artifacts lie in it.")
def remove_storage(name: str, force: bool) -> None:
    """Forget a storage and its secrets. The data in it stay where they are.

    Not while a running execution refers to it.
    """
    _forget("storage", name, force=str(force).lower())


@compute.command("remove")
@click.argument("name")
def remove_compute(name: str) -> None:
    """Forget a compute, its secrets, and what it kept on the server's machine.

    Not while a running execution refers to it.
    """
    _forget("compute", name)


def _broken(info: Broken) -> click.Command:
    def tell(name: str) -> None:
        raise ConfigError(f"adapter {info.id!r} is broken: {info.reason}")

    return click.Command(
        info.id, callback=tell, params=[click.Argument(["name"])], help=f"Broken: {info.reason}"
    )


def _add_command(port: Port, info: AdapterInfo) -> click.Command:
    from deepforge.settings import declared

    settings = declared(info.settings_class())

    def add(name: str, as_json: bool, **values: Any) -> None:
        given = {one.name: values[one.name] for one in settings if values[one.name] is not None}
        _check_missing(info, settings, given)
        _read_secrets(settings, given)
        from deepforge.cli.client import connect

        with connect() as client:
            problem = _check_offered(client, port, info, settings, given)
            made = client.post(
                f"/connections/{port}", {"name": name, "adapter": info.id, "settings": given}
            )
        if as_json:
            show.print_json(made)
            return
        click.echo(f"{port} {name} is kept; prove it: deepforge {port} check {name}", err=True)
        if problem:
            click.echo(f"its settings were not looked up: {problem.message}", err=True)
            if problem.hint:
                click.echo(f"    {click.style('hint:', fg='cyan')} {problem.hint}", err=True)
        elif set(made["secrets"]) - given.keys():
            click.echo("it uses the login of what you have at the same account", err=True)

    parameters: list[click.Parameter] = [click.Argument(["name"])]
    parameters += [_option(one) for one in settings]
    command = click.Command(
        info.id,
        callback=add,
        params=parameters,
        help=f"Add a {port}: {info.title}.\n\n{info.summary}",
        epilog=_EXAMPLES.get((port, info.id))
        or (_SECRETS_EPILOG if any(one.is_secret for one in settings) else None),
    )
    return show.json_option(command)


def _check_offered(
    client: Client,
    port: Port,
    info: AdapterInfo,
    settings: tuple[Setting, ...],
    given: dict[str, Any],
) -> DeepForgeError | None:
    """Refuse what the service does not offer, and a login that it does not accept. Returns why it
    could not be asked, if so."""
    from deepforge.settings import Choice, Choices, check_offered

    answer = client.post(f"/adapters/{port}/{quote(info.id, safe='')}/choices", {"settings": given})
    if answer["problem"]:
        error = _problem(answer)
        has_login = any(one.is_secret and one.name in given for one in settings)
        if isinstance(error, AuthError) and (has_login or not error.expired):
            raise error
        return error
    offered = {
        one["setting"]: Choices(
            tuple(Choice(each["value"], each["note"]) for each in one["offered"]),
            one["several"],
            one["others"],
            one["problem"] or "",
        )
        for one in answer["items"]
    }
    check_offered({one.name: given.get(one.name, one.default) for one in settings}, offered)
    for name, value in given.items():
        if told := _told(offered.get(name), str(value)):
            click.echo(show.one_line(f"{name} {value}: {told}"), err=True)
    return None


def _told(choices: Choices | None, value: str) -> str:
    """What there is to say of a value: the service's note, or that there is one much like it."""
    from deepforge.settings import like

    if choices is None or choices.several:
        return ""
    notes = {one.value: one.note for one in choices.offered}
    if value in notes:
        return notes[value]
    near = like(value, list(notes), cutoff=_VERY_LIKE)
    return f"not there yet; did you mean {near[0]!r}?" if near else ""


def _problem(answer: dict[str, Any]) -> DeepForgeError:
    from deepforge.cli.client import spelled_error

    told = answer["problem"]
    return spelled_error(told["code"], told["message"], told["hint"], told["details"])


def _option(one: Setting) -> click.Option:
    """Spell a setting as an option. The server checks its value; here it only must fit."""
    about = one.sentence + (f" In {one.unit}." if one.unit else "")
    if one.required:
        about += "  [required]"
    elif not one.is_secret and one.default not in (None, ""):
        default = str(one.default).lower() if one.kind == "boolean" else one.default
        about += f"  [default: {default}]"
    if one.kind == "boolean":
        return click.Option([f"{one.option}/--no-{one.option[2:]}"], default=None, help=about)
    kind: click.ParamType[Any] = click.Choice(one.choices) if one.choices else click.STRING
    metavar = (
        None if one.choices else {"integer": "NUMBER", "number": "NUMBER"}.get(one.kind, "TEXT")
    )
    return click.Option([one.option], type=kind, metavar=metavar, help=about)


def _check_missing(info: AdapterInfo, settings: tuple[Setting, ...], given: dict[str, Any]) -> None:
    missing = [one for one in settings if one.required and one.name not in given]
    if missing:
        options = ", ".join(one.option for one in missing)
        raise ConfigError(
            f"adapter {info.id} also needs {options}",
            fields={one.name: "is required" for one in missing},
            hint=" ".join(f"{one.option}: {one.sentence}" for one in missing),
        )


def _read_secrets(settings: tuple[Setting, ...], given: dict[str, Any]) -> None:
    """Put the true value where a secret was given as a dash: one line of standard input for each."""
    dashes = [one for one in settings if one.is_secret and given.get(one.name) == "-"]
    shown = [one.option for one in settings if one.is_secret and given.get(one.name, "-") != "-"]
    if shown:
        click.echo(
            f"warning: {' and '.join(shown)} on the command line can be seen by other users of this "
            "machine and stays in the history of the shell; a dash reads it from standard input",
            err=True,
        )
    for one in dashes:
        if sys.stdin.isatty():
            value = getpass.getpass(f"{one.title}: ")
        elif len(dashes) == 1:
            value = sys.stdin.read().rstrip("\r\n")
        else:
            value = sys.stdin.readline().rstrip("\r\n")
        if not value:
            raise InvalidRequest(f"{one.option} - read nothing from standard input", part=one.name)
        given[one.name] = value


def _summary(one: dict[str, Any]) -> str:
    parts = [
        f"{name}={value}" for name, value in one["settings"].items() if value not in (None, "")
    ]
    parts += [f"{name}=(secret)" for name in one["secrets"]]
    return " ".join(parts)


def _print_checks(name: str, answer: dict[str, Any]) -> None:
    for one in answer["checks"]:
        mark = click.style("ok", fg="green") if one["ok"] else click.style("failed", fg="red")
        click.echo(f"{mark}  {one['name']}  {show.seconds(one['seconds'])}")
        if one.get("message"):
            click.echo(f"    {one['message']}")
        if one.get("hint"):
            click.echo(f"    {click.style('hint:', fg='cyan')} {one['hint']}")
    verdict = "works" if answer["ok"] else "does not work"
    click.echo(f"{name} {verdict} ({show.seconds(answer['seconds'])})", err=True)
