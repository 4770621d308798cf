"""Two ways of making virtual hosts on a RabbitMQ: in Erlang, and through its management plugin.

The first needs an Erlang and the cookie of the node, as on the machine where it is installed; the
second is for nodes in containers.
"""

import re
from http import HTTPStatus
from typing import Protocol
from urllib.parse import quote

import httpx

from tests.servers.erlang_shell import ErlangError, ErlangShell

# Who a node's log says that made a change.
_ACTOR = '<<"orderkeep-tests">>'


class Vhosts(Protocol):
    """The virtual hosts of a server."""

    def create(self, name: str, *, user: str) -> None:
        """Create a virtual host in which the user may do everything."""

    def delete(self, name: str) -> None:
        """Delete a virtual host with all that it holds, if it is there."""

    def names(self) -> list[str]:
        """Return the names of all of them."""


class ErlangVhosts:
    """Virtual hosts as the node itself makes them: in a few milliseconds each."""

    def __init__(self, shell: ErlangShell) -> None:
        self._shell = shell

    def create(self, name: str, *, user: str) -> None:
        self._shell.evaluate(f"ok = rabbit_vhost:add({_binary(name)}, {_ACTOR}).")
        rights = ", ".join(['<<".*">>'] * 3)
        self._shell.evaluate(
            "ok = rabbit_auth_backend_internal:set_permissions("
            f"{_binary(user)}, {_binary(name)}, {rights}, {_ACTOR})."
        )

    def delete(self, name: str) -> None:
        try:
            self._shell.evaluate(f"rabbit_vhost:delete({_binary(name)}, {_ACTOR}).")
        except ErlangError as error:
            if "no_such_vhost" not in str(error):
                raise

    def names(self) -> list[str]:
        listed = self._shell.evaluate("rabbit_vhost:list_names().")
        return re.findall(r'<<"([^"]*)"', listed)


class ManagementVhosts:
    """Virtual hosts through the management plugin's HTTP interface."""

    def __init__(self, url: str, *, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._credentials = (user, password)

    def create(self, name: str, *, user: str) -> None:
        self._request("PUT", f"vhosts/{quote(name, safe='')}")
        self._request(
            "PUT",
            f"permissions/{quote(name, safe='')}/{quote(user, safe='')}",
            body={"configure": ".*", "write": ".*", "read": ".*"},
        )

    def delete(self, name: str) -> None:
        try:
            self._request("DELETE", f"vhosts/{quote(name, safe='')}")
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise

    def names(self) -> list[str]:
        return [vhost["name"] for vhost in self._request("GET", "vhosts").json()]

    def _request(self, method: str, path: str, *, body: dict | None = None) -> httpx.Response:
        answer = httpx.request(
            method,
            f"{self._url}/api/{path}",
            json=body,
            auth=self._credentials,
            trust_env=False,
            timeout=30.0,
        )
        return answer.raise_for_status()


def _binary(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}"/utf8>>'
