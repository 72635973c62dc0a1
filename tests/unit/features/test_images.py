import io
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from product_classifier.features.images import (
    MAX_BYTES,
    MIN_CROPPED_FRACTION,
    PhotoError,
    crop_white_border,
    decode_photo,
    pad_to_square,
    preprocess_photo,
    to_vgg16_input,
)

WHITE = (255, 255, 255)
RED = (255, 0, 0)
BLUE = (0, 0, 255)
WHITE_LIST = list(WHITE)


def encode(photo: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    photo = decode_photo(data)
    assert photo.mode == "RGB"
    return np.asarray(photo)


def two_colours() -> Image.Image:
    """4 wide, 2 high; left half red, right half blue."""
    photo = Image.new("RGB", (4, 2), RED)
    photo.paste(BLUE, (2, 0, 4, 2))
    return photo


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def oriented(orientation: int, kind: str) -> bytes:
    """What a camera saves: stored pixels and how to turn them so that red is left and blue right."""
    turn = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = two_colours().resize((64, 32), Image.Resampling.NEAREST)
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored, kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_lossless_formats_keep_their_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (pixels(encode(two_colours(), kind, **options)) == np.asarray(two_colours())).all()


def test_jpeg_is_read_as_it_was_saved() -> None:
    photo = Image.new("RGB", (16, 16), (200, 100, 50))
    assert np.abs(pixels(encode(photo, "JPEG", quality=95)).astype(int) - (200, 100, 50)).max() <= 3


def test_grey_of_16_bits_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 128, 257, 400, 32896, 65535]], dtype=np.uint16)
    found = pixels(encode(Image.fromarray(levels)))
    assert found[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [2] * 3, [128] * 3, WHITE_LIST]


def test_a_nearly_black_photo_of_16_bits_stays_black() -> None:
    dark = Image.fromarray(np.full((4, 4), 200, dtype=np.uint16))
    assert pixels(encode(dark)).max() <= 1


def test_transparent_pixels_lie_on_white() -> None:
    photo = Image.new("RGBA", (3, 1))
    photo.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    assert pixels(encode(photo))[0].tolist() == [list(RED), WHITE_LIST, [127] * 3]
    grey = Image.new("LA", (2, 1))
    grey.putdata([(10, 255), (10, 0)])
    assert pixels(encode(grey))[0].tolist() == [[10] * 3, WHITE_LIST]


def test_a_colour_key_is_transparency_too() -> None:
    keyed = encode(two_colours(), "PNG", transparency=RED)
    assert pixels(keyed)[0].tolist() == [WHITE_LIST, WHITE_LIST, list(BLUE), list(BLUE)]
    assert pixels(encode(Image.new("L", (2, 2), 7), "PNG", transparency=7)).min() == 255


def test_a_palette_with_transparency_lies_on_white() -> None:
    photo = two_colours().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    red = photo.getpixel((0, 0))
    found = pixels(encode(photo, "PNG", transparency=red))
    assert found[0].tolist() == [WHITE_LIST, WHITE_LIST, list(BLUE), list(BLUE)]
    alphas = bytes(128 if index == red else 255 for index in range(256))
    faint = pixels(encode(photo, "PNG", transparency=alphas))
    assert np.abs(faint[0, 0].astype(int) - (255, 127, 127)).max() <= 1
    gif = encode(photo, "GIF", transparency=red)
    assert pixels(gif)[0, 0].tolist() == WHITE_LIST


def test_cmyk_is_converted() -> None:
    photo = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink on paper
    assert np.abs(pixels(encode(photo, "JPEG", quality=95)).astype(int) - RED).max() <= 6


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_come_upright(orientation: int, kind: str) -> None:
    found = pixels(oriented(orientation, kind)).astype(int)
    assert found.shape == (32, 64, 3)
    assert np.abs(found[16, 8] - RED).max() <= 12
    assert np.abs(found[16, 56] - BLUE).max() <= 12


# Found by changing bytes of sound EXIF data at random: Pillow reads the orientation but not all of the rest.
HALF_BROKEN = (
    b"Exif\0\0MM\0*\0\0\0\x08\0\x03\x01\x1c\0\x02\0\0\0\x04Cam\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    b"\x87i\0\x04\0\0\0\x01\0\0\0\xbd\0\0\0\0\0\x01\x90\0\0\x07\0\0\0\x040230:\0\0\0"
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (b"Exif\0\0garbage garbage", (8, 4)),
        (b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", (8, 4)),
        (b"Exif\0\0MM", (8, 4)),
        (HALF_BROKEN, (4, 8)),
    ],
)
def test_broken_exif_data_does_not_cost_the_photo(exif: bytes, size: tuple[int, int]) -> None:
    photo = encode(Image.new("RGB", (8, 4), BLUE), "JPEG", exif=exif)
    assert decode_photo(photo).size == size


def test_unreadable_exif_data_does_not_cost_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_photo: Image.Image) -> Image.Exif:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert decode_photo(encode(two_colours())).size == (4, 2)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels(data) == RED).all(), kind


def test_the_file_name_plays_no_part() -> None:
    """`image_1_product_1.jpg` holds PNG or WEBP often enough: only bytes are looked at."""
    assert pixels(encode(two_colours(), "WEBP", lossless=True)).shape == (2, 4, 3)


@pytest.mark.parametrize("colour", [WHITE, (0, 0, 0), RED])
@pytest.mark.parametrize("crop", [True, False])
def test_a_photo_of_one_pixel_fills_the_picture(colour: tuple[int, int, int], crop: bool) -> None:
    found = preprocess_photo(encode(Image.new("RGB", (1, 1), colour)), 32, crop)
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    assert (found == colour).all()


def test_unusable_photos_say_why() -> None:
    jpeg = encode(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    png = encode(Image.effect_noise((64, 64), 90).convert("RGB"))
    for data, reason in (
        (b"", r"empty \(0 bytes\)"),
        (b"\x00" * 100, "none of JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of JPEG"),
        (b"not a photo", "none of JPEG"),
        (encode(two_colours(), "TIFF"), "none of JPEG"),
        (jpeg[: len(jpeg) // 2], "damaged"),
        (png[: len(png) // 2], "damaged"),
        (jpeg[:20], "damaged|none of JPEG"),
        (png[:200] + b"\xff" * 50 + png[250:], "damaged"),
        (b"\xff" * (MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes"),
        (png_header(5000, 5000), "5000x5000"),
        (png_header(10_001, 1), "10001x1"),
        (png_header(9_900, 10_000), "too large|9900x10000"),  # Pillow warns
        (png_header(60_000, 60_000), "too large"),  # Pillow refuses
    ):
        with pytest.raises(PhotoError, match=reason):
            decode_photo(data)


def test_limits_are_inclusive() -> None:
    assert decode_photo(encode(Image.new("1", (10_000, 2_000), 1))).size == (10_000, 2_000)
    padded = encode(two_colours())
    assert decode_photo(padded + b"\0" * (MAX_BYTES - len(padded))).size == (4, 2)


def test_dimensions_are_checked_before_memory_is_taken() -> None:
    data = png_header(9_999, 9_999)
    tracemalloc.start()
    try:
        with pytest.raises(PhotoError):
            decode_photo(data)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_very_long_photo_becomes_no_giant_square() -> None:
    square = pad_to_square(Image.new("RGB", (10_000, 10), RED))
    assert square.width == square.height == 4_096
    found = preprocess_photo(encode(Image.new("RGB", (1, 10_000), RED)), 64, crop=False)
    assert (found[:, 0] == 255).all()  # still a thin line in the middle
    assert found[32, 32].min() < 255


def test_white_borders_are_cropped_to_the_product() -> None:
    photo = Image.new("RGB", (100, 80), (250, 250, 250))
    photo.paste(RED, (30, 20, 70, 60))
    cropped = crop_white_border(photo)
    assert cropped.size == (40, 40)
    assert (np.asarray(cropped) == RED).all()


def test_noise_near_white_is_border_and_grey_is_product() -> None:
    for level, size in ((245, (20, 20)), (244, (100, 100))):
        photo = Image.new("RGB", (100, 100), WHITE)
        photo.putpixel((0, 0), (255, 255, level))
        photo.putpixel((99, 99), (level, 255, 255))
        photo.paste(BLUE, (40, 40, 60, 60))
        assert crop_white_border(photo).size == size


def test_what_would_leave_nearly_nothing_is_not_cropped() -> None:
    for side, cropped in ((20, True), (19, False)):
        photo = Image.new("RGB", (100, 100), WHITE)
        photo.paste(RED, (10, 10, 10 + side, 10 + side))
        assert (crop_white_border(photo).size == (side, side)) is cropped
    assert MIN_CROPPED_FRACTION == 0.2
    white = Image.new("RGB", (10, 10), WHITE)
    assert crop_white_border(white).size == (10, 10)
    assert (preprocess_photo(encode(white), 32, crop=True) == 255).all()


def test_padding_centres_the_photo_on_white() -> None:
    found = np.asarray(pad_to_square(two_colours()))
    assert found.shape == (4, 4, 3)
    assert (found[[0, 3]] == 255).all()
    assert (found[1:3] == np.asarray(two_colours())).all()
    tall = np.asarray(pad_to_square(Image.new("RGB", (1, 4), RED)))
    assert (tall[:, 1] == RED).all()
    assert (np.delete(tall, 1, axis=1) == 255).all()


def test_proportions_are_kept() -> None:
    wide = Image.new("RGB", (200, 100), RED)
    found = preprocess_photo(encode(wide), 64, crop=False)
    assert (found[18:46] == RED).all()
    assert (found[:14] == 255).all()
    assert (found[50:] == 255).all()


def test_cropping_is_applied_only_when_asked_for() -> None:
    photo = Image.new("RGB", (64, 64), WHITE)
    photo.paste(RED, (16, 16, 48, 48))
    data = encode(photo)
    assert (preprocess_photo(data, 32, crop=True) == RED).all()
    assert (preprocess_photo(data, 32, crop=False)[0] == 255).all()


def test_vgg16_input_is_what_keras_makes_of_it() -> None:
    vgg16 = pytest.importorskip("keras").applications.vgg16
    photo = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    before = photo.copy()
    found = to_vgg16_input(photo)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vgg16.preprocess_input(photo.astype(np.float32)))
    np.testing.assert_array_equal(photo, before)


def test_photos_decode_alike_in_eight_threads() -> None:
    generator = np.random.default_rng(1)
    data = []
    for index in range(200):
        noise = Image.fromarray(generator.integers(0, 256, (40, 30, 3), dtype=np.uint8))
        match index % 5:
            case 0:
                data.append(encode(noise, "JPEG"))
            case 1:
                data.append(encode(noise))
            case 2:
                data.append(encode(noise.convert("CMYK"), "JPEG"))
            case 3:
                data.append(oriented(1 + index % 8, "JPEG"))
            case _:
                data.append(b"broken" * index)

    def outcome(content: bytes) -> bytes:
        try:
            return preprocess_photo(content, 32, crop=True).tobytes()
        except PhotoError as error:
            return str(error).encode()

    expected = [outcome(content) for content in data]
    with ThreadPoolExecutor(8) as pool:
        for found in (list(pool.map(outcome, data)) for _ in range(3)):
            assert found == expected


def test_decoding_changes_no_state_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter on warnings, or Pillow's limit, would change under other threads' feet."""
    original, seen = Image.open, []

    def state() -> object:
        return list(warnings.filters), Image.MAX_IMAGE_PIXELS

    def watched(*arguments: Any, **options: Any) -> Image.Image:
        seen.append(state())
        return original(*arguments, **options)

    monkeypatch.setattr(Image, "open", watched)
    before = state()
    decode_photo(encode(two_colours()))
    assert [*seen, state()] == [before, before]
