"""All parts of a server, opened together: what routes may use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from deepforge.accounts import tokens as token_store
from deepforge.accounts import users as user_store
from deepforge.accounts.tokens import Tokens
from deepforge.accounts.users import Users
from deepforge.connections import open as connection_opener
from deepforge.connections import store as connection_store
from deepforge.connections.endpoints import EVERYTHING, AllowedEndpoints
from deepforge.connections.open import Opener
from deepforge.connections.secrets import SecretBox
from deepforge.connections.store import DEFAULT_STORAGE, Connections
from deepforge.documents.port import DocumentStore
from deepforge.documents.registry import open_documents
from deepforge.events import Events
from deepforge.execution import store as execution_store
from deepforge.execution.access import Address
from deepforge.execution.attempts import Attempts
from deepforge.execution.bundle import Bundles
from deepforge.execution.driver import Driver
from deepforge.execution.effects import Effects
from deepforge.execution.handover import Handover
from deepforge.execution.log_watch import LogWatch
from deepforge.execution.logs import LiveLogs
from deepforge.execution.service import Executions
from deepforge.execution.store import ExecutionStore
from deepforge.projects import artifacts as artifact_store
from deepforge.projects import history as history_store
from deepforge.projects import store as project_store
from deepforge.projects.artifacts import Artifacts
from deepforge.projects.history import History
from deepforge.projects.store import Projects
from deepforge.sciserver.refusals import remembered_by
from deepforge.server.home import Home
from deepforge.server.own_blobs import OwnBlobs
from deepforge.webgme import blob_store
from deepforge.webgme import pools as pool_store
from deepforge.webgme import queue as worker_queue
from deepforge.webgme.blob_store import BlobStore
from deepforge.webgme.hand_out import HandOut
from deepforge.webgme.queue import Queue

COLLECTIONS = (
    *project_store.COLLECTIONS,
    *history_store.COLLECTIONS,
    *artifact_store.COLLECTIONS,
    *connection_store.COLLECTIONS,
    *execution_store.COLLECTIONS,
    *user_store.COLLECTIONS,
    *token_store.COLLECTIONS,
    *blob_store.COLLECTIONS,
    *connection_opener.COLLECTIONS,
    *worker_queue.COLLECTIONS,
    *pool_store.COLLECTIONS,
)
"""Every kind of document a server keeps."""


@dataclass(frozen=True)
class Services:
    home: Home
    documents: DocumentStore
    users: Users
    tokens: Tokens
    projects: Projects
    history: History
    artifacts: Artifacts
    connections: Connections
    opener: Opener
    blobs: BlobStore
    executions: Executions
    attempts: Attempts
    driver: Driver
    events: Events
    hand_out: HandOut


@asynccontextmanager
async def open_services(
    home: Home,
    *,
    drive: bool,
    address: Address,
    environ: Mapping[str, str] = os.environ,
    endpoints: AllowedEndpoints = EVERYTHING,
) -> AsyncIterator[Services]:
    """Open the database of this home and everything above it; close all at the end of the block.

    With `drive`, executions are adopted and driven within the block; without, they only can be
    looked at and asked for, and a database that is full or cannot be written is good enough.
    `endpoints` are those that may be called for users. Raises `ConfigError`, also for a secret key that
    is none, and `Unavailable` when there is no database.
    """
    box = SecretBox(home.secret_key, environ)
    box.check()
    async with AsyncExitStack() as stack:
        documents = await stack.enter_async_context(
            open_documents(home.database_url(environ), COLLECTIONS, reading_suffices=not drive)
        )
        users = Users(documents)
        events = Events()
        logs = LiveLogs(home.logs)
        projects = Projects(documents)
        history = History(documents)
        artifacts = Artifacts(documents)
        connections = Connections(
            documents,
            box,
            home=home.folder,
            environ=environ,
            may_use_server=users.may_use_server,
            endpoints=endpoints,
        )
        stack.enter_context(remembered_by(connections.refusals))
        opener = await stack.enter_async_context(
            Opener(connections, computes=home.computes, records=documents, seal=box)
        )
        store = ExecutionStore(documents)
        queue = Queue(documents, box)
        blobs = BlobStore(
            documents,
            lambda name, owner: opener.storage(name, owner=owner),
            storage=DEFAULT_STORAGE,
            job_files=queue.job_files,
        )
        handover = Handover(opener, Bundles(history), box, address, nearer=OwnBlobs(blobs, address))
        effects = Effects(opener, handover, artifacts, logs)
        driver = Driver(store, opener, effects, events)
        log_watch = await stack.enter_async_context(
            LogWatch(store, opener, address, driver, logs, events)
        )
        hand_out = await stack.enter_async_context(HandOut(queue))
        if drive:
            await stack.enter_async_context(driver)
        yield Services(
            home=home,
            documents=documents,
            users=users,
            tokens=Tokens(documents, users, is_pool=hand_out.pools.is_owner),
            projects=projects,
            history=history,
            artifacts=artifacts,
            connections=connections,
            opener=opener,
            blobs=blobs,
            executions=Executions(
                store,
                projects,
                history,
                artifacts,
                opener,
                handover,
                driver,
                logs,
                log_watch,
                events,
            ),
            attempts=Attempts(store, opener, handover, driver, logs, events),
            driver=driver,
            events=events,
            hand_out=hand_out,
        )


def _in_use(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


InUse = Annotated[Services, Depends(_in_use)]
