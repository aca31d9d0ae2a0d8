from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from deepforge.errors import ConfigError
from deepforge.settings import (
    Choice,
    Choices,
    Secret,
    build,
    check_offered,
    declared,
    from_environment,
    instead_of,
    json_schema,
    setting,
    split_secrets,
)


@dataclass(frozen=True)
class Lab:
    bucket: str = setting("Name of the bucket.", example="data")
    endpoint_url: str | None = setting("Where the service is.", default=None)
    retries: int = setting("How often to try.", default=3)
    pause_s: float = setting("How long to wait.", default=0.5, unit="s")
    path_style: bool = setting("Bucket in the path.", default=True)
    mode: Literal["fast", "safe"] = setting("How to write.", default="safe")
    key: Secret = setting("Secret key.", default=Secret(""))


def test_texts_become_typed_values() -> None:
    made = build(
        Lab,
        {
            "bucket": "b",
            "retries": "7",
            "pause_s": "1e-3",
            "path_style": "no",
            "mode": "fast",
            "key": "k",
        },
    )

    assert made == Lab("b", None, 7, 0.001, False, "fast", Secret("k"))


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Lab, {"retries": "many", "pause_s": "inf", "mode": "slow", "colour": "red"})

    assert set(caught.value.fields) == {"bucket", "retries", "pause_s", "mode", "colour"}
    assert "is required" in caught.value.fields["bucket"]
    assert "fast, safe" in caught.value.fields["mode"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bucket", 3),
        ("bucket", None),
        ("bucket", "nul\0"),
        ("retries", 1.5),
        ("retries", True),
        ("path_style", "perhaps"),
        ("pause_s", "nan"),
        ("key", 5),
    ],
)
def test_a_wrong_value_names_its_field(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Lab, {"bucket": "b", name: value})

    assert list(caught.value.fields) == [name]


def test_a_secret_does_not_show_itself() -> None:
    made = build(Lab, {"bucket": "b", "key": "hunter2"})

    assert "hunter2" not in repr(made)
    assert "hunter2" not in f"{made.key}"
    assert made.key.reveal() == "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(made.key)
    with pytest.raises(TypeError):
        json.dumps(made.key)


def test_secrets_are_split_from_the_rest() -> None:
    plain, secret = split_secrets(build(Lab, {"bucket": "b", "key": "hunter2"}))

    assert secret == {"key": "hunter2"}
    assert "key" not in plain
    assert build(Lab, {**plain, **secret}) == build(Lab, {"bucket": "b", "key": "hunter2"})


def test_the_schema_draws_a_form() -> None:
    schema = json_schema(Lab)

    assert schema["required"] == ["bucket"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["mode"]["enum"] == ["fast", "safe"]
    assert schema["properties"]["pause_s"]["x-unit"] == "s"
    secret = schema["properties"]["key"]
    assert (secret["format"], secret["writeOnly"]) == ("password", True)
    assert "default" not in secret
    json.dumps(schema)


def test_options_come_from_the_same_declaration() -> None:
    assert [one.option for one in declared(Lab)][:2] == ["--bucket", "--endpoint-url"]


def test_the_environment_gives_settings() -> None:
    environ = {
        "DEEPFORGE_STORAGE_LAB__BUCKET": "b",
        "DEEPFORGE_STORAGE_LAB__PATH_STYLE": "false",
        "DEEPFORGE_STORAGE_LABORATORY__BUCKET": "other",
        "DEEPFORGE_STORAGE_LAB__": "nothing",
    }

    found = from_environment("DEEPFORGE_STORAGE_LAB__", environ)

    assert found == {"bucket": "b", "path_style": "false"}
    assert build(Lab, found).path_style is False


def test_a_type_that_no_form_can_draw_is_the_authors_mistake() -> None:
    @dataclass(frozen=True)
    class Wrong:
        places: list[str] = setting("Where.", default=None)

    with pytest.raises(TypeError, match="places"):
        declared(Wrong)


OFFERED = {
    "domain": Choices((Choice("Small Jobs Domain"), Choice("Large Jobs Domain"))),
    "data": Choices((Choice("sdss"), Choice("SDSS DAS")), several=True),
    "volume": Choices((Choice("scratch"),), others=True),
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"domain": "", "data": "", "volume": None},
        {"domain": "Large Jobs Domain", "data": " SDSS DAS ,sdss,", "volume": "my own", "other": 1},
    ],
)
def test_what_is_offered_passes(values: dict[str, Any]) -> None:
    check_offered(values, OFFERED)


def test_what_is_not_offered_is_named_with_what_is_like_it_and_all_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        check_offered({"domain": "small job domain", "data": "sdss,x", "volume": "y"}, OFFERED)

    assert set(caught.value.fields) == {"domain", "data"}
    assert "'small job domain' for domain" in caught.value.message
    assert "'x' for data" in caught.value.message
    hint = caught.value.hint or ""
    assert "did you mean 'Small Jobs Domain'" in hint
    assert "there is: Small Jobs Domain, Large Jobs Domain" in hint
    assert "there is: sdss, SDSS DAS" in hint


def test_a_value_with_a_problem_is_refused_though_others_would_do() -> None:
    volume = Choices((Choice("scratch"),), others=True, problem="bob does not share it")

    with pytest.raises(ConfigError) as caught:
        check_offered({"volume": "bob/x", "domain": "D"}, {**OFFERED, "volume": volume})

    assert caught.value.message == "not offered: 'D' for domain; bob does not share it"
    assert set(caught.value.fields) == {"domain", "volume"}
    assert "there is: scratch" in (caught.value.hint or "")


def test_names_of_others_do_not_reach_a_terminal_as_they_are() -> None:
    hint = instead_of("vol", ["vol\x1b[31m\nerror: pay"])

    assert hint.isprintable()
    assert instead_of("anything", []) == "there is: nothing"
    assert instead_of("", ["a", "b"]) == "there is: a, b"
    many = instead_of("volume-4711", [f"volume-{number}" for number in range(5000)])
    assert many.startswith("did you mean 'volume-4711'")
    assert many.endswith("and 4900 more")
    assert instead_of("large", ["Large Jobs Domain"]).startswith(
        "did you mean 'Large Jobs Domain'?"
    )
