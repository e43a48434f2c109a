"""Ledger of contents in one update: which row has the vector of which bytes, which files wait for it, what is bad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clipkit.store.records import Known, ScannedFile, Written


class Ledger:
    """Contents by SHA-256. No disk and no model in it; contains the contents whose vector a row has.

    rows: all that the index knows. absent: those of them whose file is not there; a new path with the same bytes takes
    such a row over, id and all. replaced: SHA-256 -> id of old contents that an earlier run did not live to drop.
    """

    def __init__(self, rows: Iterable[Known], *, absent: Iterable[Known] = (), replaced: Mapping[bytes, int]) -> None:
        self._ids = dict(replaced)  # SHA-256 -> id of a row that has its vector
        self._content: dict[str, bytes] = {}  # path -> SHA-256 of what its row has the vector of
        for row in rows:
            if row.sha256 and row.is_embedded:
                self._ids[row.sha256] = row.id
                self._content[row.path] = row.sha256
        self._absent = {row.id: row.path for row in absent}
        self._waiting: dict[bytes, list[ScannedFile]] = {}
        self._bad: dict[bytes, str] = {}
        self.has_replaced = bool(replaced)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._ids

    def id_of(self, sha256: bytes) -> int | None:
        """The row that has the vector of these bytes."""
        return self._ids.get(sha256)

    def holds(self, path: str, sha256: bytes) -> bool:
        """Whether the row of `path` has the vector of these very bytes."""
        return self._content.get(path) == sha256

    def is_absent(self, id_: int) -> bool:
        """Whether the file of this row is not there, and no other file has taken the row over."""
        return id_ in self._absent

    def appear(self, id_: int) -> None:
        """The file of this row is there after all."""
        self._absent.pop(id_, None)

    def put(self, path: str, sha256: bytes | None, written: Written) -> None:
        """The row of `path` has the vector of other bytes now; None: it has none."""
        old = self._content.pop(path, None)
        if written.replaced_id is not None:
            self.has_replaced = True
            if old is not None and self._ids.get(old) == written.id:
                self._ids[old] = written.replaced_id
        if sha256 is not None:
            self._ids.setdefault(sha256, written.id)
            self._content[path] = sha256

    def move(self, id_: int, path: str) -> None:
        """An absent row now stands for `path`."""
        self._content[path] = self._content.pop(self._absent.pop(id_))

    def wait(self, sha256: bytes, found: ScannedFile) -> None:
        """`found` has the bytes of a file whose outcome is not known yet."""
        self._waiting.setdefault(sha256, []).append(found)

    def take_waiting(self, sha256: bytes) -> list[ScannedFile]:
        """The files that waited for the outcome of these bytes; they wait no more."""
        return self._waiting.pop(sha256, [])

    def condemn(self, sha256: bytes, reason: str) -> None:
        """No vector can be made of these bytes."""
        self._bad[sha256] = reason

    def reason_against(self, sha256: bytes) -> str | None:
        """Why no vector can be made of these bytes, if that is known."""
        return self._bad.get(sha256)
