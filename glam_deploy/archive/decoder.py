"""Decoding of the images of an archive: on Linux in a process of its own, elsewhere in the process that reads them."""

import os
import sys
from pathlib import PurePath

from glam_deploy import reading
from glam_deploy.archive.reader import Decoder
from glam_deploy.records import Mammogram

DECODING_S = 60.0
"""Longest time to decode an image on Linux."""


def open_decoder() -> tuple[Decoder, str]:
    """A decoder that is ready to work, and which limits it has not got, as of `start.confine`; "" except on Linux.

    Raises OSError if its process cannot be started.
    """
    return (decode_here, "") if sys.platform != "linux" else _decoder_in_child()


def decode_here(data: bytes, name: PurePath, /, *, for_processing: bool) -> Mammogram:
    """Decode in this process, without limits."""
    with reading.as_file(data) as path:
        return reading.read_under_name(path, name, for_processing=for_processing)


def _decoder_in_child() -> tuple[Decoder, str]:
    from glam_deploy.decoding.view_reader import NotStarted, ViewReader

    reader = ViewReader(longest_s=DECODING_S, niceness=0)  # Ray has given readers and predictors one priority
    missing = reader.wait_until_ready().missing

    def decode(data: bytes, name: PurePath, /, *, for_processing: bool) -> Mammogram:
        try:
            return reader.read_content(data, name, for_processing=for_processing)
        except NotStarted:
            os._exit(1)  # this machine lacks memory or processes, and the image is not the cause

    return decode, missing
