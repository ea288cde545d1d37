"""Decoders of pixel data, one module per transfer syntax family; each checks that the stream has all pixels."""
