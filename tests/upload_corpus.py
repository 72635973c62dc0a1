"""Uploads that people and attackers send, built in code: name, bytes, and what the service may answer.

`corpus()` gives a `Case` by name; `mutate` damages sound files in a repeatable way.
"""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

OK, WRONG_FORMAT, UNUSABLE = 200, 415, 422


@dataclass(frozen=True)
class Case:
    """One upload: its content, how it calls itself, and the status that a photo alone gets."""

    data: bytes
    status: int
    name: str = "photo.jpg"
    content_type: str = "image/jpeg"


def picture(width: int = 60, height: int = 40, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture with structure, so that it neither compresses to nothing nor is all white."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 230, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, body: bytes, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG that claims a size; its body is what the caller gives, compressed."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(body, 9)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _animation(kind: str) -> bytes:
    first, *others = (picture(seed=seed) for seed in range(4))
    return encode(first, kind, save_all=True, append_images=others, duration=50)


def _deep_grey(width: int, height: int) -> bytes:
    levels = np.linspace(0, 65535, width * height).astype(np.uint16).reshape(height, width)
    return encode(Image.fromarray(levels), "PNG")


def _transparent_palette() -> bytes:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return encode(image, "PNG", transparency=3)


def _icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _sound() -> Iterator[tuple[str, Case]]:
    photo = picture()
    jpeg, png = encode(photo, "JPEG"), encode(photo, "PNG")
    yield "jpeg", Case(jpeg, OK)
    yield "jpeg progressive", Case(encode(photo, "JPEG", progressive=True), OK)
    yield "png", Case(png, OK, "photo.png", "image/png")
    yield "webp", Case(encode(photo, "WEBP"), OK, "photo.webp", "image/webp")
    yield "webp lossless", Case(encode(photo, "WEBP", lossless=True), OK, "p.webp", "image/webp")
    yield "bmp", Case(encode(photo, "BMP"), OK, "photo.bmp", "image/bmp")
    yield "gif", Case(encode(photo, "GIF"), OK, "photo.gif", "image/gif")
    yield "16 bit grey", Case(_deep_grey(40, 30), OK, "deep.png", "image/png")
    yield "16 bit wide", Case(_deep_grey(300, 2), OK, "deep.png", "image/png")
    body = b"".join(b"\0" + bytes(range(60)) for _ in range(10))
    yield "16 bit colour", Case(png_of(10, 10, body, 16, 2), OK, "deep.png", "image/png")
    yield "cmyk", Case(encode(picture(mode="CMYK"), "JPEG"), OK)
    yield "cmyk small", Case(encode(picture(1, 1, "CMYK"), "JPEG"), OK)
    yield "palette", Case(encode(photo.convert("P"), "PNG"), OK, "p.png", "image/png")
    yield "palette transparent", Case(_transparent_palette(), OK, "p.png", "image/png")
    yield "bilevel", Case(encode(photo.convert("1"), "PNG"), OK, "p.png", "image/png")
    yield "alpha", Case(encode(picture(mode="RGBA"), "PNG"), OK, "a.png", "image/png")
    yield "grey alpha", Case(encode(picture(mode="LA"), "PNG"), OK, "a.png", "image/png")
    yield "all transparent", Case(encode(Image.new("RGBA", (9, 9)), "PNG"), OK, "a.png")
    yield "animated gif", Case(_animation("GIF"), OK, "a.gif", "image/gif")
    yield "animated webp", Case(_animation("WEBP"), OK, "a.webp", "image/webp")
    yield "animated png", Case(_animation("PNG"), OK, "a.png", "image/png")
    for orientation in (3, 6, 9, 65535):
        data = encode(photo, "JPEG", exif=_exif(orientation))
        yield f"exif orientation {orientation}", Case(data, OK)
    yield "exif broken", Case(encode(photo, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), OK)
    yield "icc", Case(encode(photo, "JPEG", icc_profile=_icc()), OK)
    yield "icc broken", Case(encode(photo, "JPEG", icc_profile=b"\xff" * 500), OK)
    yield "one pixel", Case(encode(Image.new("RGB", (1, 1)), "PNG"), OK, "1.png", "image/png")
    yield "very wide", Case(encode(Image.new("RGB", (9_999, 1)), "PNG"), OK, "w.png", "image/png")
    yield "very high", Case(encode(Image.new("RGB", (1, 9_999)), "PNG"), OK, "h.png", "image/png")
    yield "wrong extension", Case(png, OK, "photo.jpg", "image/jpeg")
    yield "wrong content type", Case(jpeg, OK, "photo.jpg", "application/x-sh")
    yield "no extension", Case(jpeg, OK, "photo", "application/octet-stream")
    yield "odd name", Case(jpeg, OK, "../../etc/passwd\u202e.jpg", "image/jpeg")
    yield "polyglot jpeg and zip", Case(jpeg + b"PK\x03\x04" + b"\0" * 200, OK)
    yield (
        "polyglot gif and script",
        Case(encode(photo, "GIF") + b"/*<script>alert(1)</script>*/", OK, "a.gif", "text/html"),
    )


def _broken() -> Iterator[tuple[str, Case]]:
    photo = picture(300, 200)
    jpeg, png = encode(photo, "JPEG"), encode(photo, "PNG")
    yield "truncated jpeg", Case(jpeg[: len(jpeg) // 2], UNUSABLE)
    yield "truncated png", Case(png[: len(png) // 2], UNUSABLE, "p.png", "image/png")
    yield "truncated webp", Case(encode(photo, "WEBP")[:200], UNUSABLE, "p.webp", "image/webp")
    yield "jpeg header alone", Case(jpeg[:20], WRONG_FORMAT)
    yield "zero bytes", Case(b"", UNUSABLE)
    yield "zero bytes png", Case(b"", UNUSABLE, "p.png", "image/png")
    yield "zeros", Case(b"\0" * 5_000, WRONG_FORMAT)
    yield "bomb of width x height", Case(png_of(9_000, 9_000, b"\0"), UNUSABLE, "bomb.png")
    yield "bomb of sides", Case(png_of(60_000, 100, b"\0"), UNUSABLE, "bomb.png")
    yield (
        "bomb beyond any size",
        Case(png_of(2**31 - 1, 2**31 - 1, b"\0"), UNUSABLE, "bomb.png", "image/png"),
    )
    yield (
        "bomb of compression",
        Case(png_of(5_000, 5_000, b"\0" * 5_001 * 5_000), UNUSABLE, "bomb.png", "image/png"),
    )
    text = zlib.compress(b"\0" * 60_000_000, 9)
    bomb = png[:33] + _chunk(b"zTXt", b"k\0\0" + text) + png[33:]
    yield "bomb of text", Case(bomb, UNUSABLE, "bomb.png", "image/png")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "svg", Case(svg, WRONG_FORMAT, "a.svg", "image/svg+xml")
    entity = (
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
    )
    yield "svg with entity", Case(entity, WRONG_FORMAT, "a.svg", "image/svg+xml")
    yield "tiff", Case(encode(photo, "TIFF"), WRONG_FORMAT, "a.tif", "image/tiff")
    yield "ico", Case(encode(picture(32, 32), "ICO"), WRONG_FORMAT, "a.ico", "image/x-icon")
    yield "pdf", Case(b"%PDF-1.7\n" + b"x" * 500, WRONG_FORMAT, "a.pdf", "application/pdf")
    yield "eps", Case(b"%!PS-Adobe-3.0 EPSF-3.0\n", WRONG_FORMAT, "a.eps", "image/jpeg")
    yield "html", Case(b"<html><body>hello</body></html>", WRONG_FORMAT, "a.jpg", "image/jpeg")
    yield "executable", Case(b"\x7fELF" + b"\1" * 500, WRONG_FORMAT, "photo.jpg", "image/jpeg")
    yield "text as jpeg", Case(b"\xff\xd8\xff not a photo", WRONG_FORMAT)
    yield "too many bytes", Case(jpeg + b"\0" * 9_000_001, UNUSABLE)


def corpus() -> dict[str, Case]:
    """Every upload by its name."""
    return {name: case for source in (_sound, _broken) for name, case in source()}


def mutate(generator: random.Random) -> bytes:
    """A sound file with bytes flipped, cut out, doubled or cut off."""
    kind = generator.choice(("JPEG", "PNG", "WEBP", "GIF", "BMP"))
    data = bytearray(encode(picture(seed=generator.randrange(5)), kind))
    for _ in range(generator.randrange(1, 8)):
        start = generator.randrange(len(data))
        action = generator.randrange(4)
        if action == 0:
            data[start] = generator.randrange(256)
        elif action == 1:
            data[start : start + 4] = generator.randbytes(4)
        elif action == 2:
            data[start : start + generator.randrange(1, 60)] = b""
        else:
            data[start:start] = data[start : start + generator.randrange(1, 200)]
        data = data or bytearray(b"\0")
    return bytes(data)
