"""Images and parquet files made by the tests, in the layout of the hub."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def encoded(pixels: np.ndarray, format: str = "PNG", mode: str = "RGB") -> bytes:
    """Return the bytes of an image file with these pixels (height, width, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


def write_hub_parquet(
    path: Path,
    contents: list[bytes | None],
    labels: list[int | None],
    *,
    image: str = "img",
    label: str = "label",
    names: list[str] | None = None,
    paths: list[str] | None = None,
) -> Path:
    """Write image files and labels as the hub does; with `names`, the metadata that declares both columns."""
    structs = [{"bytes": data, "path": origin} for data, origin in zip(contents, paths or [None] * len(contents))]
    columns = {
        image: pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        label: pa.array(labels, pa.int64()),
    }
    table = pa.table(columns)
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """The function `encoded`."""
    return encoded


@pytest.fixture
def write() -> Callable[..., Path]:
    """The function `write_hub_parquet`."""
    return write_hub_parquet


@pytest.fixture
def cifar_names() -> list[str]:
    """The class names of CIFAR-10 in the order of its labels."""
    return CIFAR_NAMES


@pytest.fixture
def pixels() -> np.ndarray:
    """Twelve random images of 4×6 pixels, (count, height, width, 3), 0 … 255."""
    return np.random.default_rng(0).integers(0, 256, (12, 4, 6, 3), dtype=np.uint8)


@pytest.fixture
def real_data() -> Path:
    """The directory of real data beside the repository; the test is skipped where there is none."""
    root = Path(__file__).parents[2].parent / "shared" / "data"
    if not (root / "svhn" / "train.parquet").is_file():
        pytest.skip("no real data beside the repository")
    return root
