"""Parquet files written here: known bytes in, known pixels out, and a clear error for each way to be damaged."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nodestill.data.parquet import decode_parquet
from nodestill.errors import DataError, NodestillError


def read(path: Path):
    return decode_parquet(path.read_bytes(), path)


def plain_parquet(columns: dict) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "columns",
    [
        {"image": "img", "label": "label", "names": ["x", "y"]},
        {"image": "picture", "label": "kind", "names": ["x", "y"]},
        {"image": "image", "label": "label", "names": None},
        {"image": "picture", "label": "label", "names": None},
    ],
)
def test_pixels_labels_and_names_come_out_as_they_went_in(tmp_path, write, encode, pixels, columns):
    labels = [0, 1] * 6
    origins = [f"train/{number}.png" for number in range(12)]
    path = write(tmp_path / "train.parquet", [encode(image) for image in pixels], labels, paths=origins, **columns)
    found = read(path)
    assert np.array_equal(found.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert found.images.is_contiguous()
    assert found.labels.tolist() == labels
    assert found.class_names == tuple(columns["names"] or ())
    assert found.paths == origins


def test_the_declared_columns_win_over_the_usual_names(encode, pixels):
    struct = pa.struct([("bytes", pa.binary())])
    right, wrong = ([{"bytes": encode(image)}] for image in pixels[:2])
    features = '{"info": {"features": {"good": {"_type": "Image"}, "fine": {"_type": "ClassLabel", "names": ["p", "q"]}}}}'
    columns = {"img": pa.array(wrong, struct), "good": pa.array(right, struct), "label": [0], "fine": [1]}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": features}), sink)
    found = decode_parquet(sink.getvalue(), Path("two.parquet"))
    assert np.array_equal(found.images[0].numpy(), pixels[0].transpose(2, 0, 1))
    assert found.labels.tolist() == [1]
    assert found.class_names == ("p", "q")


def test_images_may_be_a_plain_column_of_bytes(encode, pixels):
    found = decode_parquet(plain_parquet({"image": [encode(pixels[3])], "label": [4]}), Path("plain.parquet"))
    assert np.array_equal(found.images[0].numpy(), pixels[3].transpose(2, 0, 1))


def test_row_groups_are_read_in_order(tmp_path, encode, pixels):
    path = tmp_path / "groups.parquet"
    table = pa.table({"image": [encode(image) for image in pixels], "label": list(range(12))})
    pq.write_table(table, path, row_group_size=5)
    found = read(path)
    assert np.array_equal(found.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert found.labels.tolist() == list(range(12))


def test_a_jpeg_is_decoded_to_what_pillow_sees(encode, pixels):
    jpeg = encode(pixels[0], "JPEG")
    with Image.open(io.BytesIO(jpeg)) as image:
        expected = np.asarray(image)
    found = decode_parquet(plain_parquet({"image": [jpeg], "label": [0]}), Path("jpeg.parquet"))
    assert np.array_equal(found.images[0].numpy(), expected.transpose(2, 0, 1))


def test_grey_becomes_three_equal_channels_and_transparency_is_dropped(encode, pixels):
    grey = encode(pixels[0], mode="L")
    transparent = encode(np.dstack([pixels[1], np.full((4, 6), 7, np.uint8)]), mode="RGBA")
    found = decode_parquet(plain_parquet({"image": [grey, transparent], "label": [0, 0]}), Path("modes.parquet"))
    with Image.open(io.BytesIO(grey)) as image:
        assert np.array_equal(found.images[0].numpy(), np.asarray(image)[None].repeat(3, 0))
    assert np.array_equal(found.images[1].numpy(), pixels[1].transpose(2, 0, 1))


def test_what_is_not_a_decodable_image_is_named_by_its_row(tmp_path, write, encode, pixels):
    good = encode(pixels[0])
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    gif = encode(pixels[0], "GIF")  # readable by Pillow, but not among the formats that are let in
    for number, bad in enumerate([b"not an image", b"", None, good[: len(good) // 2], bytes(flipped), gif]):
        path = write(tmp_path / f"{number}.parquet", [good, good, bad], [0, 0, 0])
        with pytest.raises(DataError, match=rf"Row 2 of .*{number}\.parquet"):
            read(path)


def test_sixteen_bits_per_channel_are_refused(tmp_path, write):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(buffer, "PNG")
    with pytest.raises(DataError, match="8 bits per channel"):
        read(write(tmp_path / "deep.parquet", [buffer.getvalue()], [0]))


def test_images_of_different_sizes_are_refused_with_the_sizes(tmp_path, write, encode, pixels):
    path = write(tmp_path / "sizes.parquet", [encode(pixels[0]), encode(pixels[1]), encode(pixels[2, :3])], [0, 0, 0])
    with pytest.raises(DataError, match=r"6×4 \(2 images\), 6×3 \(1 images\).*Resize"):
        read(path)


def test_no_rows_and_missing_labels_are_refused(tmp_path, write, encode, pixels):
    with pytest.raises(DataError, match="holds no images"):
        read(write(tmp_path / "empty.parquet", [], []))
    with pytest.raises(DataError, match=r"Row 1 of .* has no label"):
        read(write(tmp_path / "null.parquet", [encode(pixels[0])] * 2, [3, None]))


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"label": [0]}, "images"),
        ({"image": ["text"], "label": [0]}, "images"),
        ({"image": [b"x"], "fine_label": [0]}, "integer labels"),
        ({"image": [b"x"], "label": [0.5]}, "integer labels"),
    ],
)
def test_missing_columns_are_named_with_those_that_are_there(columns, missing):
    with pytest.raises(DataError, match=f"no column of {missing}.*its columns are: {next(iter(columns))}"):
        decode_parquet(plain_parquet(columns), Path("wrong.parquet"))


@pytest.mark.parametrize("metadata", [b"not json", b"[]", b'{"info": {"features": ["img"]}}', b'{"info": null}'])
def test_metadata_that_say_nothing_are_passed_over(encode, pixels, metadata):
    table = pa.table({"image": [encode(pixels[0])], "label": [5]}).replace_schema_metadata({"huggingface": metadata})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    found = decode_parquet(sink.getvalue(), Path("odd.parquet"))
    assert (found.labels.tolist(), found.class_names) == ([5], ())


def test_text_that_is_not_utf8_is_refused(encode, pixels):
    origin = pa.array([b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    image = pa.StructArray.from_arrays([pa.array([encode(pixels[0])]), origin], ["bytes", "path"])
    with pytest.raises(DataError, match="not a readable parquet file"):
        decode_parquet(plain_parquet({"image": image, "label": [0]}), Path("text.parquet"))


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(DataError, match="not a readable parquet file"):
        decode_parquet(data, Path("bytes.parquet"))


@settings(max_examples=60)
@given(st.data())
def test_a_truncated_or_altered_file_never_escapes_as_another_error(choice):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    whole = plain_parquet({"image": [buffer.getvalue()], "label": [1]})
    with pytest.raises(DataError, match="not a readable parquet file"):
        decode_parquet(whole[: choice.draw(st.integers(0, len(whole) - 1))], Path("cut.parquet"))
    altered = bytearray(whole)
    altered[choice.draw(st.integers(0, len(whole) - 1))] ^= choice.draw(st.integers(1, 255))
    try:
        found = decode_parquet(bytes(altered), Path("altered.parquet"))
    except NodestillError:
        return
    assert found.images.shape[1] == 3  # the change may lie where nothing is read
