"""From a photo's bytes to VGG16's input. Used unchanged by training, batch scoring and serving."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from product_classifier.core.errors import DataValidationError

IMAGE_VERSION = (
    1  # raise it with any change below: an older bundle must then be refused, not misread
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 20_000_000
MAX_SIDE = 10_000
MAX_BYTES = 9_000_000
MAX_SQUARE_SIDE = 4_096  # 50 MB of pixels

# A border counts as white from this level on: JPEG noise stays a few levels under 255.
WHITE_LEVEL = 245
# Less than this share of a side is never left after cropping: a tiny mark on white is no product.
MIN_CROPPED_FRACTION = 0.2

# What brings a photo of each EXIF orientation upright; 1 is upright already.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# ImageNet channel means in BGR order: the convention of VGG16's released weights.
# Source: https://arxiv.org/abs/1409.1556, section 2.1, and keras.applications.vgg16.preprocess_input.
VGG16_MEANS_BGR = np.array([103.939, 116.779, 123.68], dtype=np.float32)


class PhotoError(DataValidationError):
    """A photo can't be used; the message says why, without its content."""


def decode_photo(data: bytes) -> Image.Image:
    """Decodes an untrusted photo to upright RGB.

    Size, sides and format are checked before a pixel is decoded. EXIF orientation is applied where it is readable,
    alpha laid on white, 16-bit grey scaled (not clipped), CMYK and palettes converted; of an animation the first
    frame counts. Safe to call from several threads: Pillow's warnings are left alone, since catching them is not.

    Raises:
        PhotoError: no allowed format, too large, or damaged.
    """
    if not data:
        raise PhotoError("The photo is empty (0 bytes).")
    if len(data) > MAX_BYTES:
        raise PhotoError(f"The photo has {len(data)} bytes. At most {MAX_BYTES} are allowed.")
    try:
        photo = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(photo.width, photo.height)
        photo.load()
        return _to_rgb(_upright(photo))
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # from 89 megapixels on
        raise PhotoError(
            f"The photo is too large. At most {MAX_PIXELS} pixels are allowed."
        ) from None
    except UnidentifiedImageError:
        raise PhotoError(f"The photo is none of {', '.join(FORMATS)}.") from None
    except Exception as error:  # a damaged photo can raise nearly anything in a decoder
        raise PhotoError(f"The photo is damaged: {type(error).__name__}.") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PhotoError(
            f"The photo is {width}x{height} pixels. "
            f"At most {MAX_PIXELS} pixels and {MAX_SIDE} per side are allowed."
        )


def _upright(photo: Image.Image) -> Image.Image:
    try:  # not ImageOps.exif_transpose: it fails where it can't write the other EXIF entries back
        orientation = photo.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF data can raise nearly anything; the pixels are sound
        return photo
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return photo if turn is None else photo.transpose(turn)


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith("I;16"):  # grey PNG of 16 bits
        levels = (np.asarray(photo).astype(np.uint32) + 128) // 257  # 65535 -> 255
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if "A" in photo.getbands() or "transparency" in photo.info:
        rgba = photo.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def crop_white_border(photo: Image.Image) -> Image.Image:
    """Cuts off what is white all around, so that a small product on a large canvas fills the picture."""
    levels = np.asarray(photo)  # (H, W, 3)
    dark: NDArray[np.bool_] = np.any(levels < WHITE_LEVEL, axis=2)  # (H, W, 3) -> (H, W)
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    if not rows.size:
        return photo
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    enough_height = bottom - top >= MIN_CROPPED_FRACTION * photo.height
    if not (enough_height and right - left >= MIN_CROPPED_FRACTION * photo.width):
        return photo
    return photo.crop((int(left), int(top), int(right), int(bottom)))


def pad_to_square(photo: Image.Image) -> Image.Image:
    """Centres a photo on a white square, so that scaling keeps its proportions.

    A very long photo is made smaller first: 10,000 x 1 pixels would become a square of 300 MB.
    """
    if max(photo.size) > MAX_SQUARE_SIDE:
        photo = photo.copy()
        photo.thumbnail((MAX_SQUARE_SIDE, MAX_SQUARE_SIDE), Image.Resampling.BILINEAR)
    side = max(photo.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(photo, ((side - photo.width) // 2, (side - photo.height) // 2))
    return square


@dataclass(frozen=True, slots=True)
class PreparedPhoto:
    """A photo as the network reads it, and how wide and high it came (pixels, upright, before cropping)."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def preprocess_photo(data: bytes, size: int, crop: bool) -> NDArray[np.uint8]:
    """Gives the pixels of `prepare_photo`."""
    return prepare_photo(data, size, crop).pixels


def prepare_photo(data: bytes, size: int, crop: bool) -> PreparedPhoto:
    """Decodes a photo, brings it to a square and scales it. Proportions are kept: they tell types apart.

    Args:
        data: File content, any of `FORMATS`.
        size: Pixels per side.
        crop: Whether white borders are cut off first.

    Returns:
        Pixels of shape `(size, size, 3)`, uint8 RGB in [0, 255]. The network itself subtracts the means.

    Raises:
        PhotoError: the photo can't be used.
    """
    photo = decode_photo(data)
    square = pad_to_square(crop_white_border(photo) if crop else photo)
    resized = square.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=None)
    return PreparedPhoto(np.asarray(resized, dtype=np.uint8), photo.width, photo.height)


def to_vgg16_input(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turns RGB pixels into VGG16's convention.

    Args:
        pixels: Shape `(..., 3)`, uint8 RGB.

    Returns:
        Same shape, float32, BGR, ImageNet means subtracted.
    """
    return pixels[..., ::-1].astype(np.float32) - VGG16_MEANS_BGR
