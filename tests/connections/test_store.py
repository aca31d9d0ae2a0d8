from __future__ import annotations

import asyncio
import base64
import dataclasses
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from deepforge.connections.endpoints import AllowedEndpoints
from deepforge.connections.secrets import SecretBox
from deepforge.connections.store import Connection, Connections
from deepforge.documents.port import DocumentStore
from deepforge.errors import (
    AdapterBug,
    AlreadyExists,
    ConfigError,
    Corrupt,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
)
from deepforge.plugins import Port
from deepforge.settings import Secret
from deepforge.storage.memory import MemoryAdapter

SECRET = "tOp-s3cret/key+of=the lab"
S3 = {
    "endpoint_url": "https://s3.example.org",
    "bucket": "lab-data",
    "access_key_id": "AKIA",
    "secret_access_key": SECRET,
}

Make = Callable[..., Connections]


@pytest.fixture
def make(documents: DocumentStore, box: SecretBox, tmp_path: Path) -> Make:
    """Connections over the same documents, in an environment of the test's choice."""

    def connections(
        environ: Mapping[str, str] | None = None, box: SecretBox = box, **more: Any
    ) -> Connections:
        home = tmp_path / "home"
        more = {"may_use_server": anybody, **more}
        return Connections(documents, box, home=home, environ=environ or {}, **more)

    return connections


async def anybody(owner: str) -> bool:
    return True


async def nobody(owner: str) -> bool:
    return False


async def test_what_is_added_comes_back_with_its_secrets_apart(make: Make) -> None:
    connections = make()

    added = await connections.add("storage", "lab", "s3", S3, owner="ada")

    assert added == await connections.get("storage", "lab", owner="ada")
    assert (added.port, added.name, added.adapter, added.owner) == ("storage", "lab", "s3", "ada")
    assert added.settings["bucket"] == "lab-data"
    assert added.secret_names == ("secret_access_key",)
    assert "secret_access_key" not in added.settings
    settings = await connections.settings_of(added)
    assert settings.bucket == "lab-data"
    assert settings.secret_access_key == Secret(SECRET)


async def test_secrets_never_show(make: Make, documents: DocumentStore, tmp_path: Path) -> None:
    connections = make()
    added = await connections.add("storage", "lab", "s3", S3, owner="ada")
    settings = await connections.settings_of(added)

    shown = [repr(added), str(dataclasses.asdict(added)), repr(settings), str(settings)]
    for document in await documents.find("connections"):
        shown.append(repr(document))
    for wrong in ({**S3, "bucket": 5}, {**S3, "nonsense": SECRET}, {**S3, "endpoint_url": None}):
        with pytest.raises(ConfigError) as caught:
            await connections.add("storage", "other", "s3", wrong, owner="ada")
        shown += traceback.format_exception(caught.value)
    with pytest.raises(AlreadyExists) as exists:
        await connections.add("storage", "lab", "s3", S3, owner="ada")
    shown += traceback.format_exception(exists.value)

    assert SECRET not in "\n".join(shown)


async def test_no_file_of_the_database_holds_a_secret(make: Make, tmp_path: Path) -> None:
    connections = make()
    await connections.add("storage", "lab", "s3", S3, owner="ada")

    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert {"deepforge.db", "deepforge.db-wal"} <= {one.name for one in files}
    everything = b"".join(one.read_bytes() for one in files)
    assert b"lab-data" in everything
    raw = SECRET.encode()
    for hidden in (raw, raw[:10], raw.hex().encode(), base64.b64encode(raw)[:-4], raw[::-1]):
        assert hidden not in everything


async def test_a_secret_moved_to_another_connection_does_not_open(
    make: Make, documents: DocumentStore
) -> None:
    connections = make()
    good = await connections.add("storage", "good", "s3", S3, owner="ada")
    evil = await connections.add(
        "storage", "evil", "s3", {**S3, "endpoint_url": "https://evil.example"}, owner="eve"
    )
    stolen = (await documents.get("connections", good.id)).body["secrets"]
    document = await documents.get("connections", evil.id)
    await documents.replace(
        "connections", evil.id, {**document.body, "secrets": stolen}, if_revision=1
    )

    with pytest.raises(Corrupt, match="belongs elsewhere"):
        await connections.settings_of(evil)


async def test_with_another_key_everything_but_the_secrets_can_be_seen(
    make: Make, tmp_path: Path
) -> None:
    await make().add("storage", "lab", "s3", S3, owner="ada")
    later = make(box=SecretBox(tmp_path / "another.key", {}))

    seen = await later.get("storage", "lab", owner="ada")

    assert seen.settings["bucket"] == "lab-data"
    with pytest.raises(ConfigError, match="encrypted with another key"):
        await later.settings_of(seen)
    await later.remove("storage", "lab", owner="ada")


async def test_every_wrong_setting_is_named(make: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        await make().add("storage", "lab", "s3", {"bucket": 5, "nonsense": "x"}, owner="ada")

    assert {"bucket", "nonsense"} <= caught.value.fields.keys()
    with pytest.raises(ConfigError) as caught:  # only the adapter knows
        await make().add("storage", "lab", "s3", {**S3, "bucket": "../b"}, owner="ada")
    assert caught.value.fields.keys() == {"bucket"}
    with pytest.raises(ConfigError) as caught:
        await make().add("compute", "box", "server", {"slots": 0}, owner="ada")
    assert caught.value.fields.keys() == {"slots"}
    with pytest.raises(NotFound, match="no storage adapter 'floppy'"):
        await make().add("storage", "lab", "floppy", {}, owner="ada")


async def test_an_adapter_that_breaks_on_its_settings_is_an_adapter_s_bug(
    make: Make, documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(MemoryAdapter, "__init__", broken)

    with pytest.raises(AdapterBug, match="'memory' failed with ValueError") as caught:
        await make().add("storage", "lab", "memory", {}, owner="ada")

    assert SECRET not in str(caught.value)
    assert await documents.find("connections") == []


async def test_defaults_are_there_from_the_start_and_stay(make: Make, tmp_path: Path) -> None:
    connections = make()

    local = await connections.get("storage", "local", owner="local")
    server = await connections.get("compute", "server", owner="ada")

    assert [local] == await connections.list("storage", owner="local")
    assert [server] == await connections.list("compute", owner="bob")
    assert (await connections.settings_of(local)).folder == str(tmp_path / "home" / "storage")
    assert (await connections.settings_of(server)).slots is None
    defaults: list[tuple[Port, str]] = [("storage", "local"), ("compute", "server")]
    for port, name in defaults:
        with pytest.raises(InvalidRequest, match="is always there and cannot be removed"):
            await connections.remove(port, name, owner="ada")
        with pytest.raises(AlreadyExists, match="cannot be replaced"):
            await connections.add(port, name, "memory", {}, owner="ada")


async def test_names_are_unique_for_one_owner_and_port(make: Make) -> None:
    connections = make()
    await connections.add("storage", "lab", "memory", {}, owner="ada")

    with pytest.raises(AlreadyExists, match="there is a storage 'lab' already") as caught:
        await connections.add("storage", "lab", "s3", S3, owner="ada")

    assert "deepforge storage remove lab" in str(caught.value.hint)
    await connections.add("compute", "lab", "memory", {}, owner="ada")
    await connections.add("storage", "lab", "s3", S3, owner="bob")
    places: list[tuple[Port, str]] = [("storage", "ada"), ("compute", "ada"), ("storage", "bob")]
    adapters = [(await connections.get(port, "lab", owner=owner)).adapter for port, owner in places]
    assert adapters == ["memory", "memory", "s3"]


async def test_of_twenty_who_add_one_name_one_does(make: Make) -> None:
    connections = make()

    done = await asyncio.gather(
        *(connections.add("storage", "lab", "memory", {}, owner="ada") for _ in range(20)),
        return_exceptions=True,
    )

    winners = [one for one in done if isinstance(one, Connection)]
    assert len(winners) == 1
    assert sum(isinstance(one, AlreadyExists) for one in done) == 19
    assert winners[0] == await connections.get("storage", "lab", owner="ada")


async def test_others_connections_are_not_there(make: Make) -> None:
    connections = make()
    await connections.add("storage", "lab", "memory", {}, owner="ada")

    with pytest.raises(NotFound, match="there is no storage 'lab'") as caught:
        await connections.get("storage", "lab", owner="bob")

    assert caught.value.hint == "there is: local"
    with pytest.raises(NotFound):
        await connections.remove("storage", "lab", owner="bob")
    assert len(await connections.list("storage", owner="ada")) == 2


async def test_a_removed_connection_is_gone_with_its_secrets(
    make: Make, documents: DocumentStore
) -> None:
    connections = make()
    added = await connections.add("storage", "lab", "s3", S3, owner="ada")

    await connections.remove("storage", "lab", owner="ada")

    assert await documents.find("connections") == []
    with pytest.raises(NotFound):
        await connections.settings_of(added)
    with pytest.raises(NotFound):
        await connections.remove("storage", "lab", owner="ada")
    again = await connections.add("storage", "lab", "s3", S3, owner="ada")
    assert again.id != added.id


@pytest.mark.parametrize(
    "name",
    ["", ".", "../etc", "-x", "a b", "a\nb", "é", "🦜", "a/b", "a@b", "x" * 64, "a\0", "\ud800"],
)
async def test_names_that_do_not_fit_everywhere_are_refused(make: Make, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be the name of a storage"):
        await make().add("storage", name, "memory", {}, owner="ada")
    with pytest.raises(DeepForgeError):
        await make().get("storage", name, owner="ada")


async def test_the_environment_changes_single_settings(make: Make) -> None:
    await make().add("storage", "lab-S3.1", "s3", S3, owner="local")
    connections = make(
        {
            "DEEPFORGE_STORAGE_LAB_S3_1__BUCKET": "other",
            "DEEPFORGE_STORAGE_LAB_S3_1__SECRET_ACCESS_KEY": "from the environment",
            "DEEPFORGE_STORAGE_LAB__BUCKET": "of another connection",
            "DEEPFORGE_COMPUTE_SERVER__SLOTS": "7",
        }
    )

    stored = await connections.get("storage", "lab-S3.1", owner="local")
    settings = await connections.settings_of(stored)
    server = await connections.settings_of(await connections.get("compute", "server", owner="a"))

    assert stored.settings["bucket"] == "lab-data"
    assert (settings.bucket, settings.access_key_id) == ("other", S3["access_key_id"])
    assert settings.secret_access_key == Secret("from the environment")
    assert server.slots == 7


async def test_the_environment_changes_nothing_of_other_users(make: Make, tmp_path: Path) -> None:
    """A secret of the operator must not go where somebody else says, nor two users meet in a folder."""
    connections = make(
        {
            "DEEPFORGE_STORAGE_LAB__SECRET_ACCESS_KEY": "of the operator",
            "DEEPFORGE_STORAGE_LOCAL__FOLDER": str(tmp_path / "elsewhere"),
        }
    )
    await connections.add("storage", "lab", "s3", S3, owner="eve")

    lab = await connections.settings_of(await connections.get("storage", "lab", owner="eve"))
    eves = await connections.settings_of(await connections.get("storage", "local", owner="eve"))
    ours = await connections.settings_of(await connections.get("storage", "local", owner="local"))

    assert lab.secret_access_key == Secret(SECRET)
    assert eves.folder == str(tmp_path / "home" / "users" / "eve" / "storage")
    assert ours.folder == str(tmp_path / "elsewhere")


async def test_everybody_has_a_folder_of_their_own(make: Make) -> None:
    connections = make()
    found = [
        await connections.get("storage", "local", owner=one) for one in ("ada", "bob", "local")
    ]

    assert len({one.id for one in found}) == 3
    assert len({one.settings["folder"] for one in found}) == 3


async def test_what_works_on_the_servers_machine_is_for_those_allowed(make: Make) -> None:
    """A folder of the server could be anybody's, its secret key included."""
    defined = {"DEEPFORGE_COMPUTE_BIG__ADAPTER": "server"}
    refused, allowed = make(defined, may_use_server=nobody), make(defined)
    adapters: list[tuple[Port, str, dict[str, str]]] = [
        ("storage", "local", {"folder": "/"}),
        ("storage", "memory", {}),
        ("compute", "server", {}),
        ("compute", "memory", {}),
    ]
    for port, adapter, settings in adapters:
        with pytest.raises(Forbidden, match=r"server's own machine, which ada may not") as caught:
            await refused.add(port, f"my-{adapter}", adapter, settings, owner="ada")
        assert "deepforge users permit ada --server-compute" in str(caught.value.hint)
        await allowed.add(port, f"my-{adapter}", adapter, settings, owner="ada")
        with pytest.raises(Forbidden):
            await refused.allowed(port, f"my-{adapter}", owner="ada")
        await allowed.allowed(port, f"my-{adapter}", owner="ada")
    for name in ("server", "big"):
        with pytest.raises(Forbidden, match=f"compute '{name}'"):
            await refused.allowed("compute", name, owner="ada")


async def test_who_is_not_allowed_the_machine_still_has_the_rest(make: Make) -> None:
    connections = make(may_use_server=nobody)
    await connections.add("storage", "lab", "s3", S3, owner="ada")

    assert (await connections.allowed("storage", "lab", owner="ada")).name == "lab"
    assert (await connections.allowed("storage", "local", owner="ada")).name == "local"


async def test_a_wrong_variable_is_named(make: Make) -> None:
    connections = make({"DEEPFORGE_COMPUTE_SERVER__SLOTS": "many"})
    server = await connections.get("compute", "server", owner="ada")

    with pytest.raises(ConfigError, match="compute 'server'") as caught:
        await connections.settings_of(server)

    assert caught.value.fields.keys() == {"slots"}
    assert "DEEPFORGE_COMPUTE_SERVER__" in str(caught.value.hint)


async def test_the_environment_defines_a_connection_wholly(
    make: Make, documents: DocumentStore
) -> None:
    fields = {f"DEEPFORGE_STORAGE_BIG_LAB__{name.upper()}": value for name, value in S3.items()}
    connections = make({**fields, "DEEPFORGE_STORAGE_BIG_LAB__ADAPTER": "s3"})

    defined = await connections.get("storage", "big-lab", owner="anybody")

    assert defined in await connections.list("storage", owner="ada")
    assert defined.adapter == "s3"
    assert SECRET not in repr(defined)
    settings = await connections.settings_of(defined)
    assert settings.secret_access_key == Secret(SECRET)
    assert await documents.find("connections") == []
    with pytest.raises(InvalidRequest, match="is set by the environment and cannot be removed"):
        await connections.remove("storage", "big-lab", owner="ada")
    with pytest.raises(AlreadyExists):
        await connections.add("storage", "big-lab", "memory", {}, owner="ada")


async def test_what_the_environment_defines_comes_before_what_is_stored(make: Make) -> None:
    await make().add("storage", "lab", "s3", S3, owner="ada")
    connections = make(
        {
            "DEEPFORGE_STORAGE_LAB__ADAPTER": "memory",
            "DEEPFORGE_STORAGE_LOCAL__ADAPTER": "memory",
        }
    )

    for name in ("lab", "local"):
        found = await connections.get("storage", name, owner="ada")
        assert found.adapter == "memory"
        assert (await connections.settings_of(found)).shelf == "default"
    assert len(await connections.list("storage", owner="ada")) == 2


async def test_connections_are_listed_by_name(make: Make) -> None:
    connections = make()
    for name in ("zoo", "alpha", "Mid"):
        await connections.add("storage", name, "memory", {}, owner="ada")

    names = [one.name for one in await connections.list("storage", owner="ada")]

    assert names == ["Mid", "alpha", "local", "zoo"]


async def test_secrets_are_replaced_and_nothing_else(
    make: Make, documents: DocumentStore, tmp_path: Path
) -> None:
    connections = make()
    made = await connections.add("storage", "lab", "s3", S3, owner="ada")

    changed = await connections.replace_secrets(
        "storage", "lab", {"secret_access_key": "another secret"}, owner="ada"
    )

    assert changed.id == made.id
    assert changed.revision > made.revision
    assert dataclasses.replace(changed, revision=made.revision) == made
    settings = await connections.settings_of(changed)
    assert settings.secret_access_key == Secret("another secret")
    assert settings.bucket == S3["bucket"]
    assert connections.changes == 1
    stored = await documents.get("connections", made.id)
    assert "another secret" not in repr(stored.body)


@pytest.mark.parametrize("field", ["endpoint_url", "bucket", "nonsense"])
async def test_a_secret_cannot_be_sent_elsewhere_by_replacing(make: Make, field: str) -> None:
    """Who may replace a secret would learn the former one if its address could change alone."""
    connections = make()
    await connections.add("storage", "lab", "s3", S3, owner="ada")

    with pytest.raises(ConfigError, match="cannot be replaced") as caught:
        await connections.replace_secrets("storage", "lab", {field: "x"}, owner="ada")

    assert set(caught.value.fields) == {field}


async def test_secrets_of_others_and_of_defaults_are_not_replaced(make: Make) -> None:
    connections = make()
    await connections.add("storage", "lab", "s3", S3, owner="ada")

    with pytest.raises(NotFound):
        await connections.replace_secrets("storage", "lab", {}, owner="eve")
    with pytest.raises(InvalidRequest, match="cannot be changed"):
        await connections.replace_secrets("compute", "server", {}, owner="ada")


SKY = {"username": "alice", "site": "https://sky.example.org"}
TOKEN = {"token": "gAAAAA-the-token"}


async def tokens(connections: Connections, port: Port, name: str, owner: str = "ada") -> Any:
    return (await connections.settings_of(await connections.get(port, name, owner=owner))).token


async def test_one_login_serves_what_is_added_later_for_the_same_account(make: Make) -> None:
    connections = make()
    await connections.add("storage", "sky", "sciserver", SKY | TOKEN, owner="ada")

    for port, name, change in (
        ("compute", "sci", {}),
        ("storage", "slash", {"site": "https://sky.example.org/"}),
        ("storage", "empty", {"token": "", "password": None}),
    ):
        added = await connections.add(port, name, "sciserver", SKY | change, owner="ada")  # type: ignore[arg-type]
        assert added.secret_names == ("token",)
        assert await tokens(connections, added.port, name) == Secret(TOKEN["token"])


@pytest.mark.parametrize(
    "change",
    [
        {"site": "https://other.example.org"},
        {"site": "http://sky.example.org"},
        {"username": "bob"},
        {"password": "her own"},
    ],
)
async def test_a_login_goes_nowhere_else(make: Make, change: dict[str, str]) -> None:
    connections = make()
    await connections.add("storage", "sky", "sciserver", SKY | TOKEN, owner="ada")

    await connections.add("compute", "sci", "sciserver", SKY | change, owner="ada")
    await connections.add("compute", "sci", "sciserver", SKY, owner="eve")
    made = await connections.draft("compute", "sciserver", SKY, owner="eve")

    assert await tokens(connections, "compute", "sci") is None
    assert await tokens(connections, "compute", "sci", "eve") is None
    assert made.settings.token is None


async def test_a_password_is_not_shared(make: Make) -> None:
    connections = make()
    password = {"password": "wonderland"}
    await connections.add("storage", "sky", "sciserver", SKY | password, owner="ada")

    added = await connections.add("compute", "sci", "sciserver", SKY, owner="ada")

    assert added.secret_names == ()


async def test_a_draft_is_made_with_the_login_and_not_kept(make: Make, tmp_path: Path) -> None:
    connections = make()
    await connections.add("storage", "sky", "sciserver", SKY | TOKEN, owner="ada")
    before = await connections.list("compute", owner="ada")

    made = await connections.draft("compute", "sciserver", SKY | {"domain": "x"}, owner="ada")

    assert made.settings.domain == "x"
    assert made.settings.token == Secret(TOKEN["token"])
    assert await connections.list("compute", owner="ada") == before
    assert not (tmp_path / "home" / "computes").exists()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"username": "alice", "sight": "x"}, ConfigError),
        ({}, ConfigError),
        ({"username": "../bob"}, ConfigError),
        (SKY | {"site": "https://127.0.0.1:9"}, ConfigError),
        (SKY | {"site": "http://sky.example.org"}, ConfigError),
    ],
)
async def test_a_draft_calls_nothing_that_may_not_be_called(
    make: Make, values: dict[str, str], kind: type[DeepForgeError]
) -> None:
    connections = make(endpoints=AllowedEndpoints())

    with pytest.raises(kind):
        await connections.draft("storage", "sciserver", values, owner="ada")


async def test_a_draft_is_for_those_who_may_use_the_adapter(make: Make) -> None:
    connections = make(may_use_server=nobody)

    with pytest.raises(Forbidden):
        await connections.draft("storage", "local", {"folder": "/x"}, owner="ada")
    with pytest.raises(NotFound):
        await connections.draft("storage", "no-such", {}, owner="ada")
