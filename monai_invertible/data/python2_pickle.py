"""Pickles of Python 2 that hold plain data, as CIFAR-10 is distributed: strings, whole numbers, lists, dictionaries and
arrays of bytes.

A pickle is a program; reading one of unknown origin runs what its author wrote. Here nothing is ever run: the names
that stand for NumPy's arrays are answered by stand-ins of our own, all others are refused.
"""

from __future__ import annotations

import os
import pickle
import struct
from typing import Any

import numpy as np

__all__ = ["dump_python2_pickle", "load_python2_pickle"]

_BYTES = ("u1", b"u1")


class _Kind:
    """Stands for ``numpy.dtype``."""

    def __init__(self, name: Any, *options: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """The byte order, which bytes have not."""


class _Array:
    """Stands for ``numpy.ndarray``."""

    value = np.empty(0, np.uint8)

    def __init__(self, *arguments: Any) -> None:
        """Those of an empty array, which is filled later."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if kind.name not in _BYTES:
            raise pickle.UnpicklingError(f"an array of {kind.name!r}, where bytes (u1) are expected")
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C").copy()


def _text_to_bytes(text: str, encoding: str) -> bytes:
    """Stands for ``codecs.encode``: how Python 3 writes bytes for Python 2."""
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _text_to_bytes,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is never executed")
        return _STAND_INS[module, name]


def load_python2_pickle(path: str | os.PathLike) -> dict[bytes, Any]:
    """Read a pickled dictionary; its strings are bytes, its arrays uint8.

    Raises:
        OSError: if the file does not exist, is cut off or damaged, holds anything else, or code.
    """
    try:
        with open(path, "rb") as file:
            found = _PlainUnpickler(file, encoding="bytes").load()
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"a {type(found).__name__}, where a dictionary is expected")
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise OSError(
            f"{path}: this pickle cannot be read ({cause}). If its download or copy is incomplete, fetch it again."
        ) from error
    return {key: value.value if isinstance(value, _Array) else value for key, value in found.items()}


def dump_python2_pickle(value: Any) -> bytes:
    """The pickle, protocol 2, that Python 2 makes of bytes, whole numbers, lists, dictionaries and uint8 arrays.

    Python 3 would write ``bytes`` in another way, which readers that expect Python 2 do not take for strings.
    """
    return b"\x80\x02" + _opcodes(value) + pickle.STOP


def _opcodes(value: Any) -> bytes:
    if value is None:
        return pickle.NONE
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, int):
        return pickle.BININT + struct.pack("<i", value)
    if isinstance(value, bytes):
        return pickle.BINSTRING + struct.pack("<i", len(value)) + value
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_opcodes, value)) + pickle.APPENDS
    if isinstance(value, tuple):
        return pickle.MARK + b"".join(map(_opcodes, value)) + pickle.TUPLE
    if isinstance(value, dict):
        pairs = b"".join(_opcodes(key) + _opcodes(entry) for key, entry in value.items())
        return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        empty = _called(
            "numpy.core.multiarray", "_reconstruct", _name("numpy", "ndarray"), *map(_opcodes, ((0,), b"b"))
        )
        kind = _called("numpy", "dtype", *map(_opcodes, (b"u1", 0, 1)))
        kind += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + pickle.BUILD
        filling = _opcodes(1) + _opcodes(value.shape) + kind + _opcodes(False) + _opcodes(value.tobytes())
        return empty + pickle.MARK + filling + pickle.TUPLE + pickle.BUILD
    raise ValueError(
        f"dump_python2_pickle: values must be bytes, int, list, tuple, dict or uint8 arrays, got {type(value)}. "
        "Convert it."
    )


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _called(module: str, name: str, *arguments: bytes) -> bytes:
    return _name(module, name) + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE
