"""Source of files of any storage, with the members of the containers among them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from glam_deploy.archive.sources.base import Entry, OnPassedOver, SourceUnavailable, ignored
from glam_deploy.archive.sources.containers import ContainerMember, LastContainer, Member, members
from glam_deploy.archive.sources.listings import Listing, SignedEntry
from glam_deploy.archive.sources.locations import is_container, is_hidden, local_path, split_member
from glam_deploy.archive.sources.storage import Doubt, exists, is_file, is_url, open_binary, read_all
from glam_deploy.errors import GlamError, InputError, UsageError


@dataclass(frozen=True, kw_only=True)
class Files:
    """Source of the files of a listing; a zip or tar file among them gives its members.

    A container that cannot be listed, or has no image, is an entry itself, so that it gets a row with the reason.
    """

    listing: Listing
    _last: LastContainer = field(default_factory=LastContainer, compare=False, repr=False)

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        for entry in self.listing.entries(on_passed_over):
            if is_container(entry.location):
                yield from self._members(entry, on_passed_over)
            else:
                yield entry

    def owns(self, location: str) -> bool:
        return self.listing.owns(location)

    def read(self, entry: Entry) -> bytes:
        try:
            return self._read(entry)
        except Doubt as doubt:
            raise self._decided(doubt, entry) from None

    def _read(self, entry: Entry) -> bytes:
        member = _member_of(entry.location)
        container, label = member or (entry.location, "")
        address = entry.address if isinstance(entry, SignedEntry) else container
        if member is not None:
            return self._last.read(
                ContainerMember(container=container, address=address, version=entry.version, label=label)
            )
        if is_container(entry.location):
            with open_binary(address) as file:
                for _ in members(file, entry.location):
                    pass
            raise InputError("the archive has no DICOM, PNG, TIFF or npy file: check the archive")
        return read_all(address, entry.size)

    def _members(self, container: Entry, on_passed_over: OnPassedOver) -> Iterator[Entry]:
        count = 0
        try:
            address = container.address if isinstance(container, SignedEntry) else container.location
            with open_binary(address) as file:
                for member in members(file, container.location):
                    if member.is_wanted():
                        count += 1
                        yield _member_entry(container, member)
                    elif not is_hidden(member.name):
                        on_passed_over(f"{container.location}!{member.label}")
        except Doubt as doubt:
            if isinstance(decided := self._decided(doubt, container), SourceUnavailable):
                raise decided from None
            count = 0
        except (InputError, UsageError):  # UsageError: of a URL of a list
            count = 0
        if not count:
            yield container

    def _decided(self, doubt: Doubt, entry: Entry) -> GlamError:
        """The error that a doubt is: of the entry if its source answers, else of the source."""
        answers = self.listing.answers()
        if doubt.about_entry if answers is None else answers:
            return InputError(str(doubt))
        return SourceUnavailable(f"the source of {entry.name} cannot be reached: {doubt}")


def _member_of(location: str) -> tuple[str, str] | None:
    """Container and member; None for a file, also for one of this machine whose path looks like a member's."""
    splits = split_member(location)
    if is_url(location):
        return next(splits, None)
    if exists(local_path(location)):
        return None
    # a folder on the way may be named like a container and a member
    return next((found for found in reversed([*splits]) if is_file(local_path(found[0]))), None)


def _member_entry(container: Entry, member: Member) -> Entry:
    # not the label: `!2` would hide the suffix of an image and the end of the name of a mask
    name = PurePosixPath(member.name).name or member.name
    return replace(container, location=f"{container.location}!{member.label}", name=name, size=member.size)
