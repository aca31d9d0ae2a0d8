"""The original server, one for all tests of a session in each way it is set up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from interop.webgme.ours import OurServer, server_running
from interop.webgme.server import ADMIN, Engine, engine_running, labels_mended, missing
from mongo_server import MongoServer


@pytest.fixture(scope="session")
def original() -> None:
    """Skips, by name, where the original programs are not installed."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def engine(
    original: None, mongo_server: MongoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """The original server, open to everybody: all are its user `guest`."""
    with (
        _database(mongo_server) as uri,
        engine_running(tmp_path_factory.mktemp("engine"), uri) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def engine_auth(
    original: None, mongo_server: MongoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """The original server, which wants to know who calls: its `token` is the administrator's.

    Never ask it for the output of a job it does not know: it crashes.
    """
    with (
        _database(mongo_server) as uri,
        engine_running(tmp_path_factory.mktemp("engine-auth"), uri, admin=ADMIN) as running,
    ):
        yield running


@contextlib.contextmanager
def _database(mongo_server: MongoServer) -> Iterator[str]:
    uri = mongo_server.new_database()
    if not mongo_server.name.startswith("FerretDB"):
        yield uri
        return
    with labels_mended(uri) as mended:
        yield mended


@pytest.fixture(scope="session")
def our_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a whole server of ours, for its one local user."""
    with server_running(tmp_path_factory.mktemp("ours") / "home") as server:
        yield server.url


@pytest.fixture(scope="session")
def our_server_auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OurServer]:
    """A whole server of ours, which wants to know who calls: `alice` or `bob`."""
    with server_running(tmp_path_factory.mktemp("ours") / "home", users=["alice", "bob"]) as server:
        yield server
