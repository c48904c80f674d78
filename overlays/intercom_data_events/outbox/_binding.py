# ruff: noqa: S608  # the parts of the statements are our own
"""Binds a file to the workspace that its events are for."""

from __future__ import annotations

import os
import shlex
import sqlite3
import uuid
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events.errors import ConfigurationError, OutboxError
from intercom_data_events.outbox._errors import code_of, is_full
from intercom_data_events.outbox._schema import in_turn, one, transaction

# The largest number of characters of each value.
_LONGEST = 10_000
#: The query for a file's binding; notes about rescues are in the same table.
BOUND = (
    f"SELECT name, substr(value, 1, {_LONGEST + 1}) FROM binding "
    "WHERE name IN ('mark', 'address', 'token', 'workspace')"
)


def token_digest(token: Secret[str], salt: str) -> str:
    """Returns a salt and a digest that identify a token without revealing it."""
    # Imported only when a file is bound, so that programs start faster.
    import hashlib

    digest = hashlib.blake2b(f"{salt}:{token.value}".encode(), digest_size=8).hexdigest()
    return f"{salt}:{digest}"


@frozen
class Binding:
    """The workspace that the events of a file are for.

    Attributes:
        address: The address of Intercom.
        token: The access token, of which the file keeps a digest; None if it is unknown.
        workspace: The caller's name for the workspace, which stays the same when tokens change.
        token_renewed: Whether the caller knows that the token is for the same workspace as before.
    """

    address: str
    token: Secret[str] | None = field(default=None, converter=hold)
    workspace: str | None = None
    token_renewed: bool = False

    def bind(self, connection: sqlite3.Connection, path: Path, patience: float) -> str:
        """Binds a file to the workspace, unless it is bound to another one and still in use.

        Returns:
            The mark that identifies the file's binding.

        Raises:
            ConfigurationError: The file is bound to another workspace, and it holds events or
                another process uses it.
        """
        known = bound(connection, path)
        try:
            with transaction(connection):
                problem = self._problem(bound(connection, path), path)
                if problem is None:
                    return self._note(connection, path)
        except sqlite3.Error as error:
            # On a full disk, a process can still send the events of a file that is bound already.
            if (
                not is_full(error)
                or self._problem(known, path) is not None
                or not self._is_noted(known)
            ):
                raise
            return known["mark"]
        if not _is_free(connection):
            raise ConfigurationError(f"the outbox {path} {problem}")
        # No other process has it open.
        try:
            with transaction(connection):
                connection.execute("DELETE FROM binding")
                return self._note(connection, path)
        finally:
            in_turn(connection, "PRAGMA journal_mode = WAL", patience)

    def fits(self, connection: sqlite3.Connection, path: Path) -> bool:
        """Whether a file is bound to this workspace, or not bound."""
        return self._problem(bound(connection, path), path) is None

    def _note(self, connection: sqlite3.Connection, path: Path) -> str:
        mark = bound(connection, path).get("mark") or uuid.uuid4().hex
        given = {"mark": mark, "address": self.address, "workspace": self.workspace}
        if self.token is not None:
            given["token"] = token_digest(self.token, os.urandom(8).hex())
        connection.executemany(
            "INSERT OR REPLACE INTO binding (name, value) VALUES (?, ?)",
            [(name, value) for name, value in given.items() if value is not None],
        )
        return mark

    def _is_noted(self, known: Mapping[str, str]) -> bool:
        digest = known.get("token", "")
        return (
            "mark" in known
            and known.get("address") == self.address
            and self.workspace in (None, known.get("workspace"))
            and (self.token is None or digest == token_digest(self.token, digest.partition(":")[0]))
        )

    def _problem(self, known: Mapping[str, str], path: Path) -> str | None:
        """Returns why the file may be bound to another workspace; None if it is not."""
        address, workspace, digest = (known.get(one) for one in ("address", "workspace", "token"))
        if address is None:
            return None
        if address != self.address:
            return (
                f"is for {address}, not for {self.address}; choose another path, or send its "
                f"events there with: intercom-events outbox drain {shlex.quote(str(path))} "
                f"--base-url {shlex.quote(address)}"
            )
        if workspace is not None and self.workspace is not None:
            if workspace == self.workspace:
                return None
            return (
                f"is for the workspace {workspace!r}, not {self.workspace!r}; choose another path"
            )
        if self.token_renewed:
            return None
        if digest is None or self.token is None:
            same = digest is None and self.token is None and workspace == self.workspace
        else:
            same = digest == token_digest(self.token, digest.partition(":")[0])
        if same:
            return None
        if workspace is not None:
            return (
                f"is for the workspace {workspace!r}; pass workspace={workspace!r} if that is the "
                "workspace of this token"
            )
        return (
            "is for another access token, which may belong to another workspace; if the token was "
            "renewed, run intercom-events outbox drain with --token-renewed once, and pass "
            "workspace= from then on; otherwise choose another path"
        )


def bound(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Returns a file's binding.

    Raises:
        OutboxError: No version of this library writes such a binding.
    """
    rows = connection.execute(BOUND).fetchall()
    if not all(isinstance(value, str) and len(value) <= _LONGEST for _, value in rows):
        raise OutboxError(
            f"the outbox {path} is damaged: its table 'binding' must hold strings of at most "
            f"{_LONGEST:,} characters; move it aside, or choose another path"
        )
    return dict(rows)


def _is_free(connection: sqlite3.Connection) -> bool:
    """Whether the file is empty and no other connection is open; leaving WAL mode shows it."""
    if one(connection, "SELECT EXISTS (SELECT 1 FROM events UNION SELECT 1 FROM dead)"):
        return False
    try:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.OperationalError as error:
        if code_of(error) == "SQLITE_BUSY":
            return False
        raise
    return True
