"""Listings: folder trees, prefixes of object stores, single files, and lists of paths and URLs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from glam_deploy.archive.sources.base import Entry, OnPassedOver, SourceUnavailable, ignored
from glam_deploy.archive.sources.lists import Row, rows
from glam_deploy.archive.sources.locations import (
    OTHER_SUFFIXES,
    is_archive,
    is_hidden,
    is_hidden_folder,
    is_named_image,
    local_location,
    local_path,
    name_of,
    unpacked_suffix,
    without_credentials,
)
from glam_deploy.archive.sources.storage import Doubt, exists, filesystem, is_url, local_doubt, open_binary, url_doubt
from glam_deploy.errors import InputError, UsageError
from glam_deploy.input_files import has_image, has_no_suffix, head_of


@dataclass(frozen=True, kw_only=True)
class SignedEntry(Entry):
    """An entry whose URL has credentials, which its location does not have."""

    address: str = field(repr=False)
    """The URL of the file or of its container."""


class Listing(Protocol):
    """The files of a source, containers not opened."""

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        """As of a source. Raises UsageError if the source does not exist, SourceUnavailable if it cannot be reached."""
        ...

    def owns(self, location: str) -> bool:
        """Whether a location is one of this listing, or of a member of its containers."""
        ...

    def answers(self) -> bool | None:
        """Whether the source can be reached now; None if only its entries can be asked for."""
        ...


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """A folder of this machine with its subfolders: a folder's files in sorted order, then its folders.

    Hidden files and folders and DICOMDIR are left out. A link to a folder is followed unless its target is in a folder
    that is searched anyway, so loops end. Memory: the names of the folders on the way to the current one.
    """

    root: Path
    results: Path | None = None
    """Folder of the results of the run, with all links resolved; not below `root`."""

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        """Raises UsageError too if a link leads to the results, whose pictures would be inputs of the next run."""
        if not (exists(self.root) and self.root.is_dir()):
            raise UsageError(f"{self.root} does not exist, expected a folder: check the path")
        followed = [self.root.resolve()]
        stack = [self.root]
        while stack:
            folder = stack.pop()
            try:
                found = _items(folder)
            except OSError as error:
                yield self._unsearched(folder, error)
                continue
            files = [item for item in found if not _is_folder(item)]
            for path in (Path(item.path) for item in files):
                if _is_wanted(path):
                    yield _local_entry(path)
                else:
                    on_passed_over(local_location(path))
            folders = [item for item in found if _is_folder(item)]
            stack += reversed([Path(item.path) for item in folders if self._is_to_search(item, followed)])

    def _is_to_search(self, item: "os.DirEntry[str]", followed: list[Path]) -> bool:
        if not item.is_symlink():
            return True
        return self._is_apart(Path(item.path)) and _is_new(Path(item.path), followed)

    def _is_apart(self, folder: Path) -> bool:
        """Whether a link does not lead to the results."""
        if self.results is None:
            return True
        target = folder.resolve()
        if self.results.is_relative_to(target) or target.is_relative_to(self.results):
            raise UsageError(
                f"--out {self.results} is inside the source {self.root} through the link {folder}: choose a folder "
                "outside of it, or remove the link"
            )
        return True

    def owns(self, location: str) -> bool:
        return not is_url(location) and local_path(location).is_relative_to(self.root)

    def answers(self) -> bool | None:
        try:
            with os.scandir(self.root) as items:
                return any(True for _ in items)  # a mount point without its file system is empty
        except OSError:
            return False

    def _unsearched(self, folder: Path, error: OSError) -> Entry:
        """The entry of a folder that cannot be searched, which gets a row; SourceUnavailable if the source is gone."""
        if folder == self.root or not local_doubt(error).about_entry or not self.answers():
            raise SourceUnavailable(
                f"{folder} cannot be searched ({error.strerror}): check the path, its permissions and its file system"
            ) from None
        return Entry(location=local_location(folder), name=folder.name)


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """One file: of this machine, or at a URL."""

    address: str = field(repr=False)

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        if is_url(self.address):
            yield _url_entry(self.address)
        elif exists(path := local_path(self.address)):
            yield _local_entry(path)
        else:
            raise UsageError(f"{path} does not exist, expected a file, folder or URL: check the path")

    def owns(self, location: str) -> bool:
        return location.startswith(without_credentials(self.address) if is_url(self.address) else self.address)

    def answers(self) -> bool | None:
        return None


@dataclass(frozen=True, kw_only=True)
class PrefixListing:
    """The objects under a prefix of an object store, folder by folder in sorted order.

    Memory: the listing of one folder, about 1 kB for each object, because file systems of fsspec list it at once.
    """

    url: str = field(repr=False)

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        fs, root = filesystem(self.url)
        stack, known = [root], False
        while stack:
            found = self._listed(fs, stack.pop())
            known = known or bool(found)
            for item in found:
                if item["type"] == "directory" or not _is_object(item):
                    continue
                if _may_be_image(str(item["name"])):
                    yield _object_entry(fs, item, self.url)
                else:
                    on_passed_over(fs.unstrip_protocol(str(item["name"])))
            stack += reversed([item["name"] for item in found if item["type"] == "directory" and _is_shown(item)])
        if not known:
            raise UsageError(f"{without_credentials(self.url)} has no objects, expected some: check bucket and prefix")

    def owns(self, location: str) -> bool:
        fs, root = filesystem(self.url)
        return location.startswith(str(fs.unstrip_protocol(root)).rstrip("/"))

    def answers(self) -> bool | None:
        try:
            fs, root = filesystem(self.url)
            return bool(self._listed(fs, root))
        except SourceUnavailable:
            return False

    def _listed(self, fs: Any, folder: str) -> list[dict[str, Any]]:
        try:
            found = fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            message = str(url_doubt(error))
            raise SourceUnavailable(f"{without_credentials(self.url)} cannot be listed: {message}") from None
        return sorted((item for item in found if not _is_marker(item, folder)), key=lambda item: str(item["name"]))


@dataclass(frozen=True, kw_only=True)
class ListListing:
    """The paths and URLs of a list, which may be a file of this machine or at a URL."""

    address: str = field(repr=False)

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        try:
            with open_binary(self.address) as file:
                for row in rows(file, self.address):
                    yield from self._entry(row)
        except Doubt as doubt:
            kind = UsageError if doubt.about_entry else SourceUnavailable
            raise kind(f"the list {without_credentials(self.address)} cannot be read: {doubt}") from None

    def owns(self, location: str) -> bool:
        return True

    def answers(self) -> bool | None:
        return None

    def _entry(self, row: Row) -> Iterator[Entry]:
        if is_url(row.place):
            yield _url_entry(row.place, version=row.version, size=row.size)
            return
        if is_url(self.address):
            raise UsageError(f"the list {without_credentials(self.address)} has the path {row.place}, expected URLs")
        yield _local_entry(local_path(self.address).parent / local_path(row.place))


def _items(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as items:
        shown = (item for item in items if not (is_hidden_folder if _is_folder(item) else is_hidden)(item.name))
        return sorted(shown, key=lambda item: item.name)


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False


def _is_new(folder: Path, followed: list[Path]) -> bool:
    """Whether the target of a link is to be searched; it is added to `followed`."""
    target = folder.resolve()
    if any(target == place or (target.is_relative_to(place) and _visible(target, place)) for place in followed):
        return False
    followed.append(target)
    return True


def _visible(target: Path, place: Path) -> bool:
    return not is_hidden_folder(str(target.relative_to(place)))


def _is_wanted(path: Path) -> bool:
    """Whether a file gets a row; so does one without a suffix that cannot be read, also a pipe, socket or device."""
    if is_named_image(path.name):
        return True
    try:
        head = head_of(path)
    except InputError:
        return has_no_suffix(path) and not path.is_dir()
    return has_image(path, head) or is_archive(path.name, head)


def _local_entry(path: Path) -> Entry:
    location = local_location(path)
    try:
        found = path.stat()
    except (OSError, ValueError):
        return Entry(location=location, name=path.name)
    version = f"{found.st_size}-{found.st_mtime_ns}"
    return Entry(location=location, name=name_of(location), version=version, size=found.st_size)


def _url_entry(url: str, *, version: str = "", size: int | None = None) -> Entry:
    location = without_credentials(url)
    if location == url:
        return Entry(location=location, name=name_of(location), version=version, size=size)
    return SignedEntry(location=location, name=name_of(location), version=version, size=size, address=url)


def _is_marker(item: dict[str, Any], folder: str) -> bool:
    """Whether an object of a listing is the empty one by which a store keeps the folder itself."""
    return str(item["name"]).rstrip("/") == folder.rstrip("/") and not item.get("size")


def _is_shown(item: dict[str, Any]) -> bool:
    return not is_hidden_folder(name_of(str(item["name"]).rstrip("/")))


def _is_object(item: dict[str, Any]) -> bool:
    return not (is_hidden(name_of(str(item["name"]))) or str(item["name"]).endswith("/"))


def _may_be_image(path: str) -> bool:
    """Whether an object has the name of an image, or one that says nothing."""
    return is_named_image(name_of(path)) or unpacked_suffix(name_of(path)) not in OTHER_SUFFIXES


def _object_entry(fs: Any, item: dict[str, Any], root: str) -> Entry:
    size = item.get("size")
    # the path of an object has no user, password and query of the root
    url = fs.unstrip_protocol(str(item["name"]))
    return Entry(location=url, name=name_of(url), version=_version(item), size=size if isinstance(size, int) else None)


def _version(item: dict[str, Any]) -> str:
    """ETag or checksum of an object, else its size and time of modification, "" if the store states neither."""
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if item.get(key):
            return str(item[key]).strip('"')
    times = (item.get(key) for key in ("LastModified", "last_modified", "mtime", "updated", "created"))
    time = next((value for value in times if value), None)
    return f"{item.get('size')}-{time}" if time else ""
