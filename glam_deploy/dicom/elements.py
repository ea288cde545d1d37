"""Reads the listed elements of an encoded data set (PS3.5 section 7) and builds nothing else.

pydicom builds every item of a sequence of undefined length, listed or not: 700 bytes and 20 µs for each 8 bytes of a
file. Here an element that is not listed is passed over. Limits count objects as well as bytes, so that no data set
takes more than 0.1 s and 10 MB, its pixels apart.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from struct import Struct
from typing import NoReturn

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from glam_deploy.dicom.streams import Stream
from glam_deploy.errors import DicomError

MAX_ELEMENTS = 20_000
"""Elements, items and fragments of pixel data of one object that are looked at, whether built or passed over."""
MAX_BUILT = 5_000
"""Elements and items in the listed sequences of one object."""
MAX_DEPTH = 16
"""Sequences within sequences."""
MAX_VALUE = 1 << 16
"""Bytes of a listed value, pixels and offset tables apart; the longest text among them has 10,240 characters."""

PIXEL_DATA = 0x7FE00010
BEFORE_PIXELS = PIXEL_DATA - 1
_LARGE = frozenset({PIXEL_DATA, 0x7FE00001, 0x7FE00002})
_CHARACTER_SET = 0x00080005
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_LENGTH = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length has four bytes (PS3.5 section 7.1.2)."""
_SHORT_VR = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"PN", b"SH", b"TM", b"UI", b"UL", b"US"}
)
"""Value representations that are told from the length of an implicit element, for no value of them has 16,705 bytes."""
_VR = re.compile(rb"[A-Z]{2}")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a data set is encoded, the deflation apart."""

    implicit: bool
    little: bool = True

    @classmethod
    def of(cls, syntax: UID) -> "Encoding":
        """Of a transfer syntax; every one that is not known has explicit VR and little endian (PS3.5 annex A.4)."""
        known = syntax.is_transfer_syntax
        return cls(implicit=known and syntax.is_implicit_VR, little=not known or syntax.is_little_endian)


@dataclass(frozen=True, slots=True)
class _Head:
    """Tag, VR and length of an element, as encoded."""

    tag: int
    vr: str | None
    length: int
    implicit: bool


class ElementReader:
    """Reads a data set from its beginning, part by part."""

    def __init__(self, stream: Stream, encoding: Encoding, tags: Collection[int]) -> None:
        """`stream` stands at the first element; `tags`: the listed elements of the data set itself."""
        self._stream, self._encoding = stream, encoding
        self._tags = {*tags, _CHARACTER_SET}
        self._endian = "little" if encoding.little else "big"
        order = "<" if encoding.little else ">"
        self._item, self._explicit = Struct(f"{order}HHL").unpack, Struct(f"{order}HH2sH").unpack
        self._long = Struct(f"{order}L").unpack
        self.position = stream.tell()
        """Where the first element begins that has not been read."""
        self._count = self._built = 0
        self._pending: _Head | None = None
        self._found: dict[BaseTag, RawDataElement | DataElement] = {}
        self._character_set: str | list[str] = default_encoding
        self._implicit: bool | None = None

    def through(self, last: int, *, end: int | None = None) -> Dataset:
        """All listed elements up to the tag `last`: reads on to the first element beyond it, or to the end.

        An element that begins at the position `end` is not read any more. Values are not converted yet. Raises
        DicomError where the encoding is damaged, or a limit of this module is exceeded.
        """
        if self._implicit is None:
            self._implicit = self._is_implicit(self._encoding.implicit)
        while self.position != end and (head := self._pending or self._head(self._implicit)):
            self._pending = head
            if head.tag > last:
                break
            self._pending = None
            if head.tag in self._tags:
                self._take(head)
            else:
                self._pass(head, 0)
            self.position = self._stream.tell()
        return self._dataset(self._found, self._implicit)

    def _take(self, head: _Head) -> None:
        tag = BaseTag(head.tag)
        if tag in self._found:
            self._refuse(f"element {tag} occurs twice")
        if head.tag == PIXEL_DATA and head.length == _UNDEFINED:
            self._found[tag] = self._raw(head, self._stream.tell(), self._fragments())
        else:
            self._found[tag] = self._element(head, 1)
        if head.tag == _CHARACTER_SET:
            self._use_character_set(tag)

    def _use_character_set(self, tag: BaseTag) -> None:
        """One that is unknown changes nothing: no value that decides how an image is read needs it."""
        raw = self._found[tag]
        with suppress(LookupError, ValueError, TypeError):
            element = convert_raw_data_element(raw) if isinstance(raw, RawDataElement) else raw
            self._character_set = convert_encodings(element.value)
            self._found[tag] = element

    # heads

    def _head(self, implicit: bool) -> _Head | None:
        """The next one; None at the end, where fewer than 8 bytes are left."""
        start = self._stream.read(8)
        if len(start) < 8:
            return None
        self._counted()
        group, element, vr, length = self._explicit(start)
        tag = group << 16 | element
        if implicit or not _VR.fullmatch(vr):
            # some writers change to implicit VR within explicit sequences; delimiters have no VR
            return _Head(tag, None, self._item(start)[2], True)
        if vr in _LONG_LENGTH:
            length = self._long(self._exactly(4))[0]
        return _Head(tag, vr.decode(), length, False)

    def _is_implicit(self, expected: bool) -> bool:
        """What the first element of a data set or item says, for some writers mix both encodings."""
        vr = self._stream.peek(6)[4:]
        if len(vr) < 2:
            return expected
        return vr not in _SHORT_VR if expected else not _VR.fullmatch(vr)

    # values

    def _element(self, head: _Head, depth: int) -> RawDataElement | DataElement:
        """With its value, which for a sequence is built."""
        at, tag = self._stream.tell(), BaseTag(head.tag)
        if self._is_sequence(head):
            end = None if head.length == _UNDEFINED else at + head.length
            items = Sequence(list(self._items(end, head.implicit or head.vr == "UN", depth, tag)))
            return DataElement(tag, "SQ", items, at, is_undefined_length=end is None)
        if head.length == _UNDEFINED:
            self._refuse(f"element {tag} has no length")
        if head.length > MAX_VALUE and head.tag not in _LARGE:
            self._refuse(f"element {tag} has {head.length} bytes, expected up to {MAX_VALUE}")
        return self._raw(head, at, self._exactly(head.length))

    def _raw(self, head: _Head, at: int, value: bytes) -> RawDataElement:
        kept = value or empty_value_for_VR(head.vr, raw=True)
        return RawDataElement(
            BaseTag(head.tag), head.vr, head.length, kept, at, head.implicit, self._encoding.little  # type: ignore[arg-type]
        )  # fmt: skip

    @staticmethod
    def _is_sequence(head: _Head) -> bool:
        if head.vr in (None, "UN"):
            with suppress(KeyError):
                return dictionary_VR(head.tag) == "SQ"
            # a private one of undefined length can be nothing else
            return head.length == _UNDEFINED
        return head.vr == "SQ"

    def _items(self, end: int | None, implicit: bool, depth: int, tag: BaseTag) -> Iterator[Dataset]:
        """Of a listed sequence, up to the position `end` or its delimiter."""
        self._check_depth(depth)
        while end is None or self._stream.tell() < end:
            mark, length = self._delimiter()
            if mark == _SEQUENCE_END and end is None:
                return
            if mark != _ITEM:
                self._refuse(f"sequence {tag} holds something else than items")
            self._build()
            yield self._built_item(None if length == _UNDEFINED else self._stream.tell() + length, implicit, depth)
        if self._stream.tell() != end:
            self._refuse(f"the lengths of sequence {tag} and of its items differ")

    def _built_item(self, end: int | None, implicit: bool, depth: int) -> Dataset:
        implicit = self._is_implicit(implicit) if end != self._stream.tell() else implicit
        found: dict[BaseTag, RawDataElement | DataElement] = {}
        while end is None or self._stream.tell() < end:
            head = self._head(implicit) or self._ended()
            if head.tag == _ITEM_END:
                break
            self._build()
            found[BaseTag(head.tag)] = self._element(head, depth + 1)
        return self._dataset(found, implicit)

    def _fragments(self) -> bytes:
        """Encapsulated pixel data (PS3.5 annex A.4): items as they are encoded, without the delimiter at the end."""
        value = BytesIO()
        while (mark := self._delimiter())[0] != _SEQUENCE_END:
            tag, length = mark
            if tag != _ITEM or length == _UNDEFINED:
                self._refuse("the pixel data hold something else than fragments")
            value.write(b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little"))
            value.write(self._exactly(length))
        return value.getvalue()

    # what is not listed

    def _pass(self, head: _Head, depth: int) -> None:
        if head.length != _UNDEFINED:
            self._stream.skip(head.length)
            return
        self._check_depth(depth)
        while (mark := self._delimiter())[0] != _SEQUENCE_END:
            tag, length = mark
            if tag != _ITEM:
                self._refuse(f"element {BaseTag(head.tag)} of undefined length holds something else than items")
            if length == _UNDEFINED:
                self._pass_item(head.implicit, depth)
            else:
                self._stream.skip(length)

    def _pass_item(self, implicit: bool, depth: int) -> None:
        implicit = self._is_implicit(implicit)
        while (head := self._head(implicit) or self._ended()).tag != _ITEM_END:
            self._pass(head, depth + 1)

    # limits

    def _delimiter(self) -> tuple[int, int]:
        """Tag and length of an item, or of a delimiter."""
        self._counted()
        group, element, length = self._item(self._exactly(8))
        return group << 16 | element, length

    def _exactly(self, count: int) -> bytes:
        value = self._stream.read(count)
        return value if len(value) == count else self._ended()

    def _counted(self) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            self._refuse(f"it has more than {MAX_ELEMENTS} elements and items")

    def _build(self) -> None:
        self._built += 1
        if self._built > MAX_BUILT:
            self._refuse(f"its sequences that are read have more than {MAX_BUILT} elements and items")

    def _check_depth(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self._refuse(f"sequences are nested more than {MAX_DEPTH} deep")

    def _dataset(self, found: dict[BaseTag, RawDataElement | DataElement], implicit: bool) -> Dataset:
        dataset = Dataset(dict(found), parent_encoding=self._character_set)
        dataset.set_original_encoding(implicit, self._encoding.little, self._character_set)
        return dataset

    def _ended(self) -> NoReturn:
        self._refuse("it ends in the middle of an element")

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise DicomError(f"the data set cannot be read: {what}. Export the object again, whole and as a mammogram")
