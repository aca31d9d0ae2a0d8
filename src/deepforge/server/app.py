"""The FastAPI app: route groups over one bundle of services."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.types import ASGIApp

import deepforge
from deepforge.server import faults
from deepforge.server.routes import (
    adapters,
    artifacts,
    attempts,
    connections,
    executions,
    health,
    pipelines,
    pools,
    projects,
    sciserver,
    tokens,
    users,
    webgme_blob,
    webgme_executor,
    worker_file,
    workers,
)
from deepforge.server.services import Services
from deepforge.server.wire import ErrorReply

PREFIX = "/api/v1"

_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
}


def build_app(services: Services, *, wants_login: bool = False) -> FastAPI:
    """Make the whole app. Unless it `wants_login` serve it on loopback, or embedded, only.

    The services stay open as long as the app is used; whoever opened them closes them.
    """
    app = FastAPI(
        title="DeepForge",
        version=deepforge.__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.services = services
    app.state.wants_login = wants_login
    app.state.stopping = asyncio.Event()
    faults.install(app)
    api = APIRouter(
        prefix=PREFIX,
        responses={
            "4XX": {"model": ErrorReply, "description": "The request cannot be done as it is."},
            "5XX": {"model": ErrorReply, "description": "We, or a service behind us, failed."},
        },
    )
    for router in (
        health.router,
        adapters.router,
        projects.router,
        pipelines.router,
        executions.router,
        artifacts.router,
        artifacts.uploads,
        connections.router,
        sciserver.router,
        users.router,
        tokens.router,
        pools.router,
        workers.router,
    ):
        api.include_router(router)
    # first: they are asked for most
    app.router.routes.extend([*attempts.routes(PREFIX), *webgme_executor.routes()])
    app.include_router(api)
    app.include_router(webgme_blob.router)
    app.include_router(worker_file.router)
    return app


def build_channel_app(services: Services) -> ASGIApp:
    """Make the app that answers runners alone: nothing but the attempt routes.

    Every job waits for it, so it is Starlette's, without what FastAPI adds to each request.
    """
    app = Starlette(routes=attempts.routes(PREFIX))
    app.state.services = services
    faults.install(app)
    return app
