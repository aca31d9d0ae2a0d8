"""Settings: one frozen dataclass is the source of options, forms, environment variables and docs.

    @dataclass(frozen=True)
    class S3Settings:
        bucket: str = setting("Name of the bucket.", example="lab-data")
        secret_access_key: Secret = setting("Secret key.", default=Secret(""))

Field types are `str int float bool Secret`, each also `| None`, and `Literal[...]` of strings.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, TypeVar

from deepforge.errors import ConfigError

T = TypeVar("T")

_MOST_NAMED = 100

Kind = Literal["text", "integer", "number", "boolean", "secret", "choice"]


class Secret:
    """A string that does not show itself: not in `repr`, `str`, logs, or JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret text. Call it where the text is used, not before."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> typing.NoReturn:
        raise TypeError("a secret cannot be pickled")


def setting(
    sentence: str,
    *,
    default: Any = MISSING,  # any type the field has
    title: str | None = None,
    unit: str | None = None,
    example: str | None = None,
) -> Any:  # what dataclasses.field returns to a type checker
    """Declare one setting. `sentence` explains it to the person who fills it in."""
    metadata = {"sentence": sentence, "title": title, "unit": unit, "example": example}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One declared setting, read from its dataclass field."""

    name: str
    kind: Kind
    sentence: str
    title: str
    required: bool
    default: Any  # of the field's own type; None when required
    choices: tuple[str, ...] = ()
    unit: str | None = None
    example: str | None = None
    optional: bool = False

    @property
    def is_secret(self) -> bool:
        return self.kind == "secret"

    @property
    def option(self) -> str:
        """The command line option, e.g. `--endpoint-url`."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Choice:
    """A value that a service offers for a setting; `note` says in a few words what it is."""

    value: str
    note: str = ""


@dataclass(frozen=True)
class Choices:
    """What a service offers for one setting just now."""

    offered: tuple[Choice, ...]
    several: bool = False
    """The setting takes several of them, separated by commas."""
    others: bool = False
    """Other values may do as well: what is missing can be made, or there is another way to name it."""
    problem: str = ""
    """Why the value that the setting has will not do, though others may that are not offered."""


def declared(settings: type[Any]) -> tuple[Setting, ...]:
    """Read the settings a dataclass declares, in order. Raises `TypeError` for a type not allowed."""
    hints = typing.get_type_hints(settings)
    return tuple(
        _declared_field(field, hints[field.name]) for field in dataclasses.fields(settings)
    )


def build(settings: type[T], values: Mapping[str, Any]) -> T:
    """Make the dataclass from texts or typed values (command line, environment, JSON).

    Raises `ConfigError` naming every field that is unknown, missing or of the wrong type.
    """
    known = {one.name: one for one in declared(settings)}
    problems = {name: "is not a setting of this adapter" for name in values if name not in known}
    made: dict[str, Any] = {}
    for name, one in known.items():
        if name not in values:
            if one.required:
                problems[name] = "is required"
            continue
        try:
            made[name] = _convert(one, values[name])
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        listing = "; ".join(f"{name} {problem}" for name, problem in sorted(problems.items()))
        raise ConfigError(f"settings are wrong: {listing}", fields=problems)
    return settings(**made)


def check_offered(values: Mapping[str, Any], choices: Mapping[str, Choices]) -> None:
    """Return if a service offers what these values ask for. An empty value asks for its default.

    Raises `ConfigError` naming every setting that asks for something else, with what is offered.
    """
    wrong = {
        name: asked
        for name, one in choices.items()
        if not one.others and (asked := _not_among(one, values.get(name)))
    }
    told = [f"{' and '.join(map(repr, asked))} for {name}" for name, asked in wrong.items()]
    said = [f"not offered: {'; '.join(told)}"] if told else []
    for name, one in choices.items():
        if one.problem and name not in wrong:
            said.append(one.problem)
            wrong[name] = [str(values.get(name))]
    if wrong:
        raise ConfigError(
            "; ".join(said),
            fields=dict.fromkeys(wrong, "is not offered"),
            hint=". ".join(
                instead_of(asked[0], [offer.value for offer in choices[name].offered])
                for name, asked in wrong.items()
            ),
        )


def instead_of(name: str, there_are: Sequence[str]) -> str:
    """Hint to whoever named something that is not there: what is like it, and all that there is."""
    names = there_are[:_MOST_NAMED]
    shown = ["".join(c if c.isprintable() else "\ufffd" for c in one) for one in names]
    if len(there_are) > len(names):
        shown.append(f"and {len(there_are) - len(names)} more")
    there_is = f"there is: {', '.join(shown) or 'nothing'}"
    within = [one for one in there_are if name and name.casefold() in one.casefold()]
    near = " or ".join(map(repr, list(dict.fromkeys([*within, *like(name, there_are)]))[:2]))
    return f"did you mean {near}? {there_is}" if near else there_is


def like(name: str, there_are: Sequence[str], *, cutoff: float = 0.6) -> list[str]:
    """Those that `name` may have been meant for, the likeliest first; two at most."""
    by_letters = {one.casefold(): one for one in there_are}
    close = difflib.get_close_matches(name.casefold(), by_letters, n=2, cutoff=cutoff)
    return [by_letters[one] for one in close]


def split_secrets(value: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Split a settings dataclass into plain JSON values and its revealed secrets."""
    plain: dict[str, Any] = {}
    secret: dict[str, str] = {}
    for one in declared(type(value)):
        field = getattr(value, one.name)
        if isinstance(field, Secret):
            secret[one.name] = field.reveal()
        else:
            plain[one.name] = field
    return plain, secret


def from_environment(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Collect settings from variables, e.g. `DEEPFORGE_STORAGE_LAB__ENDPOINT_URL` under the prefix
    `DEEPFORGE_STORAGE_LAB__` gives `{"endpoint_url": …}`."""
    return {
        name[len(prefix) :].lower(): value
        for name, value in environ.items()
        if name.startswith(prefix) and len(name) > len(prefix)
    }


def json_schema(settings: type[Any]) -> dict[str, Any]:
    """Return the JSON schema that draws a form: secrets are write-only passwords."""
    spelled = {"text": "string", "secret": "string", "choice": "string"}
    properties: dict[str, Any] = {}
    for one in declared(settings):
        shape: dict[str, Any] = {
            "type": spelled.get(one.kind, one.kind),
            "title": one.title,
            "description": one.sentence,
        }
        if one.choices:
            shape["enum"] = list(one.choices)
        if one.is_secret:
            shape |= {"format": "password", "writeOnly": True}
        elif not one.required:
            shape["default"] = one.default
        if one.example is not None:
            shape["examples"] = [one.example]
        if one.unit is not None:
            shape["x-unit"] = one.unit
        properties[one.name] = shape
    return {
        "type": "object",
        "properties": properties,
        "required": [one.name for one in declared(settings) if one.required],
        "additionalProperties": False,
    }


def problem_of_url(url: str, *, without: str = "a name, a password or a query") -> str | None:
    """What is wrong with the address of a service, to be said behind the name of its setting.

    `without` says what people put into such an address though it does not belong there.
    """
    from urllib.parse import urlsplit  # here: most that import this module never ask

    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is not an address: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must look like https://host or http://host:port"
    if parts.query or parts.fragment or "@" in parts.netloc:
        return f"must be the address alone, without {without}"
    return None


def _not_among(choices: Choices, value: Any) -> list[str]:
    asked = str(value or "")
    wanted = [one.strip() for one in asked.split(",")] if choices.several else [asked]
    offered = {one.value for one in choices.offered}
    return [one for one in wanted if one and one not in offered]


def _declared_field(field: dataclasses.Field[Any], hint: Any) -> Setting:
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional = len(parts) == 1
        hint = parts[0]
    kinds: dict[Any, Kind] = {
        str: "text", int: "integer", float: "number", bool: "boolean", Secret: "secret"
    }  # fmt: skip
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        kind: Kind = "choice"
        choices = typing.get_args(hint)
    elif hint in kinds:
        kind = kinds[hint]
    else:
        raise TypeError(f"setting {field.name} has the type {hint!r}, which no form can draw")
    required = field.default is MISSING and field.default_factory is MISSING
    return Setting(
        name=field.name,
        kind=kind,
        sentence=field.metadata.get("sentence", ""),
        title=field.metadata.get("title") or field.name.replace("_", " ").capitalize(),
        required=required,
        default=None if required else field.default,
        choices=choices,
        unit=field.metadata.get("unit"),
        example=field.metadata.get("example"),
        optional=optional,
    )


def _convert(one: Setting, value: Any) -> Any:
    if value is None:
        if one.optional:
            return None
        raise ValueError("must not be empty")
    if one.kind == "secret":
        return value if isinstance(value, Secret) else Secret(_text(value))
    if one.kind == "boolean":
        return _boolean(value)
    if one.kind in ("integer", "number"):
        return _number(one, value)
    text = _text(value)
    if one.choices and text not in one.choices:
        raise ValueError(f"must be one of {', '.join(one.choices)}, not {text!r}")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    spelled = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return spelled[str(value).lower()]
    except KeyError:
        raise ValueError(f"must be true or false, not {value!r}") from None


def _number(one: Setting, value: Any) -> int | float:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    try:
        number = int(value) if one.kind == "integer" else float(value)
    except (TypeError, ValueError):
        kind = "a whole number" if one.kind == "integer" else "a number"
        raise ValueError(f"must be {kind}, not {value!r}") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("must be a finite number")
    if isinstance(value, float) and number != value:
        raise ValueError(f"must be a whole number, not {value!r}")
    return number
