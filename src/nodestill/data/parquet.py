"""One parquet file of labelled images in the layout of the Hugging Face hub.

One column holds images (struct of `bytes` and `path`), one holds integer labels; the `huggingface` entry of the
schema's metadata may name both, and the classes. Nothing is unpickled.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nodestill.data.files import decode_images
from nodestill.errors import DataError

if TYPE_CHECKING:
    import pyarrow


class ParquetImages(NamedTuple):
    """The contents of one parquet file."""

    images: UInt8[Tensor, "count 3 height width"]
    labels: Int64[Tensor, " count"]
    class_names: tuple[str, ...]  # empty if the file does not say
    paths: Sequence[str | None]  # empty if the file does not say


def decode_parquet(data: bytes, path: Path) -> ParquetImages:
    """Decode the contents of a parquet file.

    Args:
        data: The file's contents.
        path: Where they came from, for messages.

    Returns:
        Images, labels, and what the file says of class names and origins.

    Raises:
        DataError: If it is not parquet, is damaged, lacks a column, has no rows, or holds what is not an image.
    """
    table, features = _table(data, path)
    image_column, label_column = _image_column(table, features, path), _label_column(table, features, path)
    encoded, paths = _bytes_and_paths(table[image_column])
    images = decode_images(encoded, lambda row: f"Row {row} of {path}", str(path))
    return ParquetImages(images, _labels(table[label_column], path), _class_names(features, label_column), paths)


def count_rows(data: bytes, path: Path) -> int:
    """Return the number of rows that the end of a parquet file states; raises `DataError` if it is not parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(data, path):
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)


def _table(data: bytes, path: Path) -> tuple["pyarrow.Table", Mapping[str, Any]]:
    """Return the table and the features that the hub's metadata declare, by column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(data, path):
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        table.validate(full=True)
        _ = table.column_names  # decoded only when looked at
    return table, _features(table.schema.metadata or {})


@contextmanager
def _readable(data: bytes, path: Path) -> Iterator[None]:
    """Say in a sentence that a file is not parquet."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} ({len(data)} bytes) is not a readable parquet file: truncated, damaged or something else. "
            "Delete it and download it again."
        ) from error


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # optional: the columns' types and names say enough


def _image_column(table: "pyarrow.Table", features: Mapping[str, Any], path: Path) -> str:
    import pyarrow as pa

    declared = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    structs = [f.name for f in table.schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    plain = [f.name for f in table.schema if f.name in ("img", "image") and pa.types.is_binary(f.type)]
    usable = [name for name in (*declared, *structs, *plain) if name in (*structs, *plain)]
    return _first(usable, "images (a struct with a field 'bytes')", table, path)


def _label_column(table: "pyarrow.Table", features: Mapping[str, Any], path: Path) -> str:
    import pyarrow as pa

    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    declared = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    return _first([n for n in (*declared, "label") if n in integers], "integer labels ('label')", table, path)


def _first(candidates: list[str], what: str, table: "pyarrow.Table", path: Path) -> str:
    if not candidates:
        columns = ", ".join(f"{field.name}: {field.type}" for field in table.schema) or "none"
        raise DataError(f"{path} has no column of {what}; its columns are: {columns}. Give it the layout of the hub.")
    return candidates[0]


def _bytes_and_paths(column: "pyarrow.ChunkedArray") -> tuple[list[bytes | None], list[str | None]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(column.type):
        return column.to_pylist(), []
    has_paths = column.type.get_field_index("path") >= 0
    paths = pc.struct_field(column, "path").to_pylist() if has_paths else []
    return pc.struct_field(column, "bytes").to_pylist(), paths


def _labels(column: "pyarrow.ChunkedArray", path: Path) -> Int64[Tensor, " count"]:
    labels = column.to_pylist()
    if None in labels:
        raise DataError(f"Row {labels.index(None)} of {path} has no label, expected an integer. Repair or remove the row.")
    return torch.tensor(labels, dtype=torch.int64)


def _class_names(features: Mapping[str, Any], label_column: str) -> tuple[str, ...]:
    names = features.get(label_column, {}).get("names")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
