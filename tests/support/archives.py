"""Log files as they lie around: compressed in every way, and packed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    return pa.compress(data, codec="zstd", asbytes=True)


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
"""By suffix."""


def tar(members: Mapping[str, bytes]) -> bytes:
    """A tar archive, with a directory and a hidden file in it besides."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        folder = tarfile.TarInfo("logs")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in {"logs/.hidden": b"not a log", **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def write_forms(directory: Path, files: Mapping[str, bytes]) -> None:
    """Each file in the next form: plain, compressed in each way, in a plain and in a compressed archive, compressed within one."""
    directory.mkdir(parents=True, exist_ok=True)
    suffixes = ["", *COMPRESS]
    for number, (name, data) in enumerate(files.items()):
        form = number % (len(suffixes) + 3)
        if form < len(suffixes):
            suffix = suffixes[form]
            packed = COMPRESS[suffix](data) if suffix else data
            (directory / f"{name}{suffix}").write_bytes(packed)
        elif form == len(suffixes):
            (directory / f"{name}.tar").write_bytes(tar({f"logs/{name}": data}))
        elif form == len(suffixes) + 1:
            (directory / f"{name}.tar.zst").write_bytes(zstd(tar({f"logs/{name}": data})))
        else:
            (directory / f"{name}.tgz").write_bytes(
                gzip.compress(tar({f"logs/{name}.gz": gzip.compress(data)}))
            )
