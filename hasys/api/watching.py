"""Joins the pieces of a watch that was interrupted into one stream without gaps and without repetitions."""

from __future__ import annotations

from hasys.api.kinds import Ref, metadata, ref_of
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import Change, WatchResponse


class Merger:
    """Remembers what its consumer knows. After ``begin_again`` the next answers are a fresh list: only what differs is
    let through, and what is missing from it is DELETED before SYNCED."""

    def __init__(self) -> None:
        self._known: dict[Ref, pb.Object] = {}
        self._unseen: set[Ref] = set()
        self._last_event = 0
        """Events are bounded in the store, not here: their growing number is all that is remembered."""
        self._listing = True
        self.version = 0
        """Resume from here; 0 while a list is incomplete."""

    def begin_again(self) -> None:
        """The next answers list everything anew."""
        self._listing = True
        self._unseen = set(self._known)
        self.version = 0

    def merge(self, answer: WatchResponse) -> WatchResponse:
        """What is new for the consumer."""
        merged = WatchResponse(resource_version=answer.resource_version)
        for change in answer.changes:
            if change.type == WatchResponse.SYNCED:
                self._forget_unseen(merged)
                self._listing = False
                merged.changes.append(change)
            elif change.type == WatchResponse.PROGRESS:
                self._listing = False
            else:
                self._merge_one(change, merged)
        if not self._listing:
            self.version = answer.resource_version
        return merged

    def _merge_one(self, change: Change, merged: WatchResponse) -> None:
        ref = ref_of(change.object)
        if ref.kind == "Event":
            number = int(ref.name[1:])
            if number > self._last_event:
                self._last_event = number
                merged.changes.append(change)
            return
        self._unseen.discard(ref)
        known = self._known.get(ref)
        if change.type == WatchResponse.DELETED:
            if known is not None:
                del self._known[ref]
                merged.changes.append(change)
            return
        fresh = metadata(change.object)
        if known is not None:
            old = metadata(known)
            if old.uid != fresh.uid:  # deleted and created again while we were away
                merged.changes.add(type=WatchResponse.DELETED, object=known)
                known = None
            elif old.resource_version >= fresh.resource_version:
                return
        self._known[ref] = change.object
        kind = WatchResponse.ADDED if known is None else WatchResponse.MODIFIED
        merged.changes.add(type=kind, object=change.object)

    def _forget_unseen(self, merged: WatchResponse) -> None:
        for ref in sorted(self._unseen):
            merged.changes.add(type=WatchResponse.DELETED, object=self._known.pop(ref))
        self._unseen.clear()
