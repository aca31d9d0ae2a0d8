"""What an app answers, one route after the other, however its routers are nested."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from deepforge.server.auth import CALLERS


def all_routes(routes: Iterable[BaseRoute], prefix: str = "") -> list[tuple[str, Route]]:
    """Every route with its whole path."""
    found: list[tuple[str, Route]] = []
    for route in routes:
        inner = getattr(route, "original_router", None)
        if isinstance(route, Route):
            found.append((prefix + route.path, route))
        elif isinstance(inner, APIRouter):
            within = prefix + str(getattr(route, "include_context").prefix)  # noqa: B009  it is private
            found += all_routes(inner.routes, within)
        else:
            raise AssertionError(f"a kind of route this test does not know: {route!r}")
    return found


def asks_who_calls(route: Route) -> bool:
    """Whether it depends on one of the callers of `server.auth`."""
    if getattr(route, "caller", None) in CALLERS:  # it asks before its handler
        return True
    return isinstance(route, APIRoute) and _depends_on_caller(route.dependant)


def _depends_on_caller(dependant: Dependant) -> bool:
    return dependant.call in CALLERS or any(map(_depends_on_caller, dependant.dependencies))
