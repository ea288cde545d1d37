"""Sources of images for the archive command: folders, lists, object stores, zip and tar files, DICOMweb servers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from glam_deploy.archive.sources.base import Entry, OnPassedOver, Source, ignored
from glam_deploy.archive.sources.dicomweb import SCHEMES, open_dicomweb
from glam_deploy.archive.sources.files import Files
from glam_deploy.archive.sources.listings import FileListing, FolderListing, Listing, ListListing, PrefixListing
from glam_deploy.archive.sources.lists import is_list
from glam_deploy.archive.sources.locations import (
    is_container,
    is_valid,
    local_location,
    local_path,
    path_part,
    scheme_of,
    without_credentials,
)
from glam_deploy.archive.sources.storage import exists, filesystem
from glam_deploy.errors import UsageError
from glam_deploy.input_files import is_image_name

STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Schemes of object stores: the URL of an object has all that is needed to read it, without the URL of the source."""


class _Part(Source, Protocol):
    def owns(self, location: str) -> bool:
        """Whether a location is one of this source."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Several sources, one after another. Lists come last where it is decided to which one an entry belongs."""

    parts: tuple[_Part, ...]

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        for part in self.parts:
            yield from part.entries(on_passed_over)

    def read(self, entry: Entry) -> bytes:
        for part in self.parts:
            if not _is_list(part) and part.owns(entry.location):
                return part.read(entry)
        return next(part for part in reversed(self.parts) if part.owns(entry.location)).read(entry)


def _is_list(part: _Part) -> bool:
    return isinstance(part, Files) and isinstance(part.listing, ListListing)


def open_source(
    texts: Sequence[str],
    *,
    modalities: Sequence[str] = (),
    authority: Path | None = None,
    results: Path | None = None,
) -> Source:
    """The source of all `texts`: each is a path, a URL or `dicomweb+https://HOST/PATH`.

    A folder and a URL without the suffix of a file are searched; a zip or tar file gives its members; a file .csv,
    .parquet, .txt or .lst is a list of paths and URLs. `modalities`: series of a DICOMweb server with one of these,
    none: MG. `authority`: CA certificates (PEM) that must have signed its certificate, None: those of this machine.
    `results`: folder of the results, which must not be in a folder of the source.

    Raises UsageError for a text that is none of these, for `results` in a folder, and for `modalities` and `authority`
    without a DICOMweb server; BackendUnavailable if a package is missing.
    """
    if not texts:
        raise UsageError("no source was given, expected folders, files, lists or URLs")
    if (modalities or authority) and not any(scheme_of(text) in SCHEMES for text in texts):
        given = "--modality" if modalities else "--authority"
        raise UsageError(
            f"{given} is for DICOMweb servers, and no source is one: leave it out. Images of other sources are chosen "
            "by their header, with --where Modality=MG"
        )
    web = partial(open_dicomweb, modalities=modalities or ("MG",), authority=authority)
    return Sources(parts=tuple(_part(text, web, results) for text in dict.fromkeys(texts)))


def _part(text: str, web: Callable[[str], _Part], results: Path | None) -> _Part:
    if not text:
        raise UsageError("a source is empty, expected a folder, file, list or URL: for the current folder give a dot")
    scheme = scheme_of(text)
    if scheme and not is_valid(text):
        raise UsageError(f"a source with {scheme}:// is not a valid URL, expected {scheme}://HOST/PATH: check its host")
    if scheme in SCHEMES:
        return web(text)
    return Files(listing=_url(text, scheme) if scheme not in ("", "file") else _local(text, results))


def _local(text: str, results: Path | None) -> Listing:
    path = local_path(text).absolute()  # readers may have another working folder
    if not exists(path):
        raise UsageError(
            f"{path} does not exist or cannot be accessed, expected a file, folder, list or URL: check the path"
        )
    if path.is_dir():
        return _folder(path, results)
    if not path.is_file():
        raise UsageError(f"{path} is a device or pipe, expected a file or a folder: save it as a file")
    address = local_location(path)
    return ListListing(address=address) if is_list(address) else FileListing(address=address)


def _folder(path: Path, results: Path | None) -> Listing:
    apart = None if results is None else results.resolve()
    if apart is not None and apart.is_relative_to(path.resolve()):
        raise UsageError(f"--out {results} is inside the source {path}: choose a folder outside of it")
    return FolderListing(root=path, results=apart)


def _url(text: str, scheme: str) -> Listing:
    is_web = scheme in ("http", "https")
    if is_web and text.endswith("/"):
        raise UsageError(
            f"{without_credentials(text)} is a folder of a web server, which has no listing: give a list of URLs, "
            f"or dicomweb+{scheme}://... for a DICOMweb server"
        )
    filesystem(text)  # its package may be missing
    if is_list(text):
        return ListListing(address=text)
    if is_web or is_container(text) or is_image_name(PurePosixPath(path_part(text))):
        return FileListing(address=text)
    if scheme not in STORES:
        raise UsageError(f"folders of {scheme}:// cannot be listed, expected one of {', '.join(STORES)}: give a list")
    return PrefixListing(url=text)
