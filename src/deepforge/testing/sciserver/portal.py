"""The login portal of the stand-in."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from deepforge.testing.sciserver.wire import Answer, Request, of_html, of_json
from deepforge.testing.sciserver.world import NotAuthenticated, Refused, Token, User, World

WRONG_PASSWORD = "HTTP/1.1 401 Unauthorized"
NOT_FOUND = "HTTP/1.1 404 Not Found"
COOKIE = "portalCookie"


class Portal:
    """Everything under `/login-portal`. `allowed_hosts`: where it sends browsers back to; None: all."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.allowed_hosts: frozenset[str] | None = None

    def answer(self, request: Request, path: str) -> Answer:
        match request.method, path.strip("/").split("/"):
            case "POST", ["keystone", "v3", "tokens"]:
                return self._v3_login(request)
            case "GET" | "HEAD", ["keystone", "v3", "tokens", token]:
                return self._v3_validate(token)
            case "GET" | "HEAD", ["api", "tokens", token]:
                return self._validated(token, of_token)
            case "GET" | "HEAD", ["api", "validate", token]:
                return self._validated(token, lambda found: {**_user(found.user)})
            case "POST", ["api", "auth"]:
                return self._api_login(request)
            case "GET", ["api", "users"]:
                user = self._world.users.by_name.get(request.query.get("name", ""))
                return of_json([] if user is None else [{**_user(user), "email": ""}])
            case "GET", ["api", "health"]:
                return of_json({"version": {"id": "v3.14", "status": "stable"}})
            case "GET", ["login"]:
                return self._login_page(request)
            case "POST", ["login"]:
                return self._login_form(request)
            case "GET", ["logout"]:
                return self._logout(request)
        return of_html(404, "HTTP Status 404")

    def _v3_login(self, request: Request) -> Answer:
        try:
            user = request.json()["auth"]["identity"]["password"]["user"]
            token = self._world.users.log_in(str(user["name"]), str(user["password"]))
        except (ValueError, KeyError, TypeError) as error:
            return self._v3_error(f"Malformed request: {error}")
        except NotAuthenticated:
            return self._v3_error(WRONG_PASSWORD)
        except Refused as refusal:
            return self._v3_error(str(refusal))
        return Answer(200, token.encode(), "text/plain", {"X-Subject-Token": token})

    def _v3_validate(self, text: str) -> Answer:
        try:
            return of_json(of_token(self._world.users.token(text)))
        except NotAuthenticated:
            return self._v3_error(NOT_FOUND)

    def _v3_error(self, message: str) -> Answer:
        time_ms = int(self._world.now() * 1000)
        error = {"message": message, "stackTrace": "at org.sciserver.portal", "time": time_ms}
        return of_json({"error": error}, 500)

    def _validated(self, text: str, spelled: Any) -> Answer:
        try:
            return of_json(spelled(self._world.users.token(text)))
        except NotAuthenticated:
            return Answer(401)

    def _api_login(self, request: Request) -> Answer:
        try:
            asked = request.json()
            token = self._world.users.log_in(str(asked["username"]), str(asked["password"]))
        except (ValueError, KeyError, TypeError, NotAuthenticated, Refused):
            return Answer(401)
        return Answer(200, token.encode(), "text/plain")

    def _login_page(self, request: Request) -> Answer:
        callback = request.query.get("callbackUrl", "")
        if refused := self._refused(callback):
            return refused
        cookie = _cookie(request)
        try:
            self._world.users.token(cookie)
        except NotAuthenticated:
            # The real page writes the address unencoded too: only its first parameter survives.
            action = html.escape(f"?callbackUrl={callback}", quote=True)
            page = (
                f'<html><body><form method="post" action="{action}">'
                '<input name="username"><input name="password" type="password">'
                "<button>Log in</button></form></body></html>"
            )
            return Answer(200, page.encode(), "text/html")
        return _redirect(with_token(callback, cookie))

    def _login_form(self, request: Request) -> Answer:
        callback = request.query.get("callbackUrl", "")
        if refused := self._refused(callback):
            return refused
        form = {name: values[0] for name, values in parse_qs(request.body().decode()).items()}
        try:
            token = self._world.users.log_in(form.get("username", ""), form.get("password", ""))
        except NotAuthenticated:
            return of_html(401, "Wrong user name or password")
        except Refused as refusal:
            return of_html(429, str(refusal))
        answer = _redirect(with_token(callback, token))
        answer.headers["Set-Cookie"] = f"{COOKIE}={token}; Path=/; Secure; HttpOnly"
        return answer

    def _logout(self, request: Request) -> Answer:
        cookie = _cookie(request)
        if cookie in self._world.users.tokens:
            self._world.users.revoke(cookie)
        answer = _redirect(request.query.get("callbackUrl", "/login-portal/login"))
        answer.headers["Set-Cookie"] = f"{COOKIE}=; Path=/; Max-Age=0"
        return answer

    def _refused(self, callback: str) -> Answer | None:
        if self.allowed_hosts is None or urlsplit(callback).hostname in self.allowed_hosts:
            return None
        return of_html(500, "Host not allowed")


def with_token(callback: str, token: str) -> str:
    """Where a browser goes after the login: the fragment is lost, an empty query leaves its mark."""
    parts = urlsplit(callback)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")) + (
        f"?{parts.query}&token={token}"
    )


def of_token(token: Token) -> dict[str, Any]:
    """As Keystone tells it."""
    domain = {"id": "default", "name": "Default"}
    return {
        "token": {
            "methods": ["password"],
            "user": {
                "domain": domain,
                "id": token.user.id,
                "name": token.user.name,
                "password_expires_at": None,
            },
            "audit_ids": [token.text[6:28]],
            "expires_at": _iso(token.expires_at),
            "issued_at": _iso(token.issued_at),
            "project": {"domain": domain, "id": token.user.id[::-1], "name": token.user.name},
            "is_domain": False,
            "roles": [{"id": "1e817ecd", "name": "user"}],
            "catalog": [],
        }
    }


def _user(user: User) -> dict[str, str]:
    return {"user_id": user.id, "username": user.name, "email": user.email}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def _cookie(request: Request) -> str:
    cookies = SimpleCookie(request.headers.get("Cookie", ""))
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _redirect(to: str) -> Answer:
    return Answer(302, headers={"Location": to})
