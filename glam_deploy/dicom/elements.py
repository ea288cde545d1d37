"""Reader of the listed elements of an encoded data set (PS3.5 section 7); other elements are skipped.

pydicom creates objects for every item of a sequence of undefined length, listed or not: 700 bytes and 20 µs for each
8 bytes of a file. This reader skips elements that are not listed. Limits count objects as well as bytes, so that no
data set takes more than 0.1 s and 10 MB, not counting its pixels.
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

from glam_deploy.dicom.streams import Stream, skip
from glam_deploy.errors import DicomError, IncompleteObject

MAX_ELEMENTS = 20_000
"""Largest number of elements, items and fragments of pixel data in one object, read and skipped ones together."""
MAX_BUILT = 5_000
"""Largest number of elements and items in the listed sequences of one object."""
MAX_DEPTH = 16
"""Largest nesting depth of sequences."""
MAX_VALUE = 1 << 16
"""Most bytes of a listed value, except pixels and offset tables; the longest text has 10,240 characters."""

PIXEL_DATA = 0x7FE00010
BEFORE_PIXELS = PIXEL_DATA - 1
_FLOAT_PIXELS = frozenset({0x7FE00008, 0x7FE00009})
_LARGE = frozenset({PIXEL_DATA, 0x7FE00001, 0x7FE00002})
_CHARACTER_SET = 0x00080005
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_LENGTH = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length has four bytes (PS3.5 section 7.1.2)."""
_SHORT_VR = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"PN", b"SH", b"TM", b"UI", b"UL", b"US"}
)
"""Value representations that prove explicit VR where implicit VR is expected: read as an implicit length, their letters
would state at least 16,705 bytes, more than a value of these has."""
_UNKNOWN_VR = frozenset({b"??", b"--", b"  "})
"""What some writers put in place of a value representation that they do not know (fo-dicom issues 179 and 1660); a
length of two bytes follows, and the data dictionary tells the representation."""
_VR = re.compile(rb"[A-Z]{2}")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """VR encoding and byte order of a data set; deflation is handled by the stream."""

    implicit: bool
    little: bool = True

    @classmethod
    def of(cls, syntax: UID) -> "Encoding":
        """The encoding of a transfer syntax; an unknown one has explicit VR and little endian (PS3.5 annex A.4)."""
        known = syntax.is_transfer_syntax
        return cls(implicit=known and syntax.is_implicit_VR, little=not known or syntax.is_little_endian)


@dataclass(frozen=True, slots=True)
class _Head:
    """Tag, VR and length of an element, as encoded."""

    tag: int
    vr: str | None
    length: int
    implicit: bool


@dataclass(frozen=True, kw_only=True)
class PixelLayout:
    """The parts of PixelData that are in a file; lengths in bytes."""

    found: int
    """Length of the pixels that are there: of the value, or of all fragments together."""
    stated: int | None
    """Length in the length field; None for encapsulated pixel data."""
    fragments: tuple[int, ...] = ()
    """Length of each fragment."""
    offsets: bytes = b""
    """Basic offset table (PS3.5 annex A.4)."""


class ElementReader:
    """Reads the listed elements of a data set from its beginning, in one or more calls of `read_through`."""

    def __init__(self, stream: Stream, encoding: Encoding, tags: Collection[int]) -> None:
        """`stream` is positioned at the first element; `tags`: the listed top-level elements of the data set."""
        self._stream, self._encoding = stream, encoding
        self._tags = {*tags, _CHARACTER_SET}
        self._endian = "little" if encoding.little else "big"
        order = "<" if encoding.little else ">"
        self._item, self._explicit = Struct(f"{order}HHL").unpack, Struct(f"{order}HH2sH").unpack
        self._long = Struct(f"{order}L").unpack
        self.position = stream.tell()
        """Position of the first element that has not been read."""
        self.has_ended = False
        """Whether the data set ends before the first element beyond the last one that was asked for."""
        self.has_float_pixels = False
        """Whether FloatPixelData or DoubleFloatPixelData were passed, which an object has in place of PixelData."""
        self._count = self._built = 0
        self._pending: _Head | None = None
        self._found: dict[BaseTag, RawDataElement | DataElement] = {}
        self._character_set: str | list[str] = default_encoding
        self._implicit: bool | None = None

    def read_through(self, last: int, *, end: int | None = None) -> Dataset:
        """All listed elements up to and including the tag `last`; values are not converted yet.

        Reads to the first element beyond `last`, to the position `end`, or to the end of the data set. Raises
        DicomError if the encoding is damaged or a limit of this module is exceeded.
        """
        if self._implicit is None:
            self._implicit = self._is_implicit(self._encoding.implicit)
        while self.position != end and (head := self._pending or self._head(self._implicit)):
            self._pending = head
            if head.tag > last:
                break
            self._pending = None
            self.has_float_pixels |= head.tag in _FLOAT_PIXELS
            if head.tag in self._tags:
                self._read_listed(head)
            else:
                self._skip(head, 0)
            self.position = self._stream.tell()
        else:
            self.has_ended = self.position != end
        return self._dataset(self._found, self._implicit)

    def measure_pixels(self) -> PixelLayout | None:
        """The layout of PixelData, whose pixels are skipped; None if the next element, or the end, is something else.

        All elements before it must have been read. Raises IncompleteObject if encapsulated pixel data have no end.
        """
        head, self._pending = self._pending, None
        if head is None or head.tag != PIXEL_DATA:
            return None
        if head.length == _UNDEFINED:
            return self._measure_fragments()
        return PixelLayout(found=self._stream.advance(head.length), stated=head.length)

    def _measure_fragments(self) -> PixelLayout:
        offsets, lengths = None, list[int]()
        while (length := self._fragment(lengths)) is not None:
            if offsets is None:
                offsets = self._exactly(length)
                continue
            found = self._stream.advance(length)
            if found < length:
                raise IncompleteObject(
                    f"PixelData: fragment {len(lengths) + 1} has {found} of {length} bytes: send the object again"
                )
            lengths.append(length)
        return PixelLayout(found=sum(lengths), stated=None, fragments=tuple(lengths), offsets=offsets or b"")

    def _fragment(self, before: list[int]) -> int | None:
        """Length of the next item of encapsulated pixel data; None at their delimiter. `before`: earlier fragments."""
        try:
            tag, length = self._delimiter()
        except IncompleteObject:
            raise IncompleteObject(
                f"PixelData has {sum(before)} bytes in {len(before)} fragments, and no end: send the object again"
            ) from None
        if tag == _SEQUENCE_END:
            return None
        if tag != _ITEM or length == _UNDEFINED:
            self._refuse("the pixel data contain data other than fragments")
        return length

    def _read_listed(self, head: _Head) -> None:
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
        """Set the character set of the elements that follow.

        An unknown one is ignored, because no value that decides how an image is read depends on it.
        """
        raw = self._found[tag]
        with suppress(LookupError, ValueError, TypeError):
            element = convert_raw_data_element(raw) if isinstance(raw, RawDataElement) else raw
            self._character_set = convert_encodings(element.value)
            self._found[tag] = element

    # heads

    def _head(self, implicit: bool) -> _Head | None:
        """The next element's head; None at the end, where fewer than 8 bytes are left."""
        start = self._stream.read(8)
        if len(start) < 8:
            return None
        self._count_element()
        group, element, vr, length = self._explicit(start)
        tag = group << 16 | element
        if not implicit and vr in _UNKNOWN_VR:
            return _Head(tag, None, length, False)
        if implicit or not _VR.fullmatch(vr):
            # some writers use implicit VR within sequences of explicit VR; delimiters have no VR
            return _Head(tag, None, self._item(start)[2], True)
        if vr in _LONG_LENGTH:
            length = self._long(self._exactly(4))[0]
        return _Head(tag, vr.decode(), length, False)

    def _is_implicit(self, expected: bool) -> bool:
        """Whether the first element of a data set or item has implicit VR, because some writers mix both encodings."""
        vr = self._stream.peek(6)[4:]
        if len(vr) < 2:
            return expected
        return vr not in _SHORT_VR if expected else not (_VR.fullmatch(vr) or vr in _UNKNOWN_VR)

    # values

    def _element(self, head: _Head, depth: int) -> RawDataElement | DataElement:
        """An element with its value; a sequence is read with all of its items."""
        at, tag = self._stream.tell(), BaseTag(head.tag)
        if self._is_sequence(head):
            end = None if head.length == _UNDEFINED else at + head.length
            items = Sequence(list(self._read_items(end, head.implicit or head.vr == "UN", depth, tag)))
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
            # a private element of undefined length can only be a sequence
            return head.length == _UNDEFINED
        return head.vr == "SQ"

    def _read_items(self, end: int | None, implicit: bool, depth: int, tag: BaseTag) -> Iterator[Dataset]:
        """The items of a listed sequence, up to the position `end` or its delimiter."""
        self._check_depth(depth)
        while end is None or self._stream.tell() < end:
            mark, length = self._delimiter()
            if mark == _SEQUENCE_END and end is None:
                return
            if mark != _ITEM:
                self._refuse(f"sequence {tag} contains data other than items")
            self._count_built()
            yield self._read_item(None if length == _UNDEFINED else self._stream.tell() + length, implicit, depth)
        if self._stream.tell() != end:
            self._refuse(f"the lengths of sequence {tag} and of its items differ")

    def _read_item(self, end: int | None, implicit: bool, depth: int) -> Dataset:
        implicit = self._is_implicit(implicit) if end != self._stream.tell() else implicit
        found: dict[BaseTag, RawDataElement | DataElement] = {}
        while end is None or self._stream.tell() < end:
            head = self._head(implicit) or self._refuse_truncated()
            if head.tag == _ITEM_END:
                break
            self._count_built()
            found[BaseTag(head.tag)] = self._element(head, depth + 1)
        return self._dataset(found, implicit)

    def _fragments(self) -> bytes:
        """Encapsulated pixel data (PS3.5 annex A.4): the encoded items, without the sequence delimiter."""
        value = BytesIO()
        while (mark := self._delimiter())[0] != _SEQUENCE_END:
            tag, length = mark
            if tag != _ITEM or length == _UNDEFINED:
                self._refuse("the pixel data contain data other than fragments")
            value.write(b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little"))
            value.write(self._exactly(length))
        return value.getvalue()

    # elements that are not listed

    def _skip(self, head: _Head, depth: int) -> None:
        if head.length != _UNDEFINED:
            skip(self._stream, head.length)
            return
        self._check_depth(depth)
        while (mark := self._delimiter())[0] != _SEQUENCE_END:
            tag, length = mark
            if tag != _ITEM:
                self._refuse(f"element {BaseTag(head.tag)} of undefined length contains data other than items")
            if length == _UNDEFINED:
                self._skip_item(head.implicit, depth)
            else:
                skip(self._stream, length)

    def _skip_item(self, implicit: bool, depth: int) -> None:
        implicit = self._is_implicit(implicit)
        while (head := self._head(implicit) or self._refuse_truncated()).tag != _ITEM_END:
            self._skip(head, depth + 1)

    # limits

    def _delimiter(self) -> tuple[int, int]:
        """Tag and length of an item, or of a delimiter."""
        self._count_element()
        group, element, length = self._item(self._exactly(8))
        return group << 16 | element, length

    def _exactly(self, count: int) -> bytes:
        value = self._stream.read(count)
        return value if len(value) == count else self._refuse_truncated()

    def _count_element(self) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            self._refuse(f"it has more than {MAX_ELEMENTS} elements and items")

    def _count_built(self) -> None:
        self._built += 1
        if self._built > MAX_BUILT:
            self._refuse(f"the sequences to be read have more than {MAX_BUILT} elements and items")

    def _check_depth(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self._refuse(f"sequences are nested more than {MAX_DEPTH} deep")

    def _dataset(self, found: dict[BaseTag, RawDataElement | DataElement], implicit: bool) -> Dataset:
        dataset = Dataset(dict(found), parent_encoding=self._character_set)
        dataset.set_original_encoding(implicit, self._encoding.little, self._character_set)
        return dataset

    def _refuse_truncated(self) -> NoReturn:
        raise IncompleteObject(
            "the data set cannot be read: it ends within an element. Export the complete object again, as a mammogram"
        )

    @staticmethod
    def _refuse(reason: str) -> NoReturn:
        raise DicomError(f"the data set cannot be read: {reason}. Export the complete object again, as a mammogram")
