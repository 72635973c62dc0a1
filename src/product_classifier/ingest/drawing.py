"""Draws the photos of the generated catalogue: each type has its motifs, colours and scenes.

A motif is a list of short commands on a canvas of 100 x 100 (`motifs.json`): `R` rectangle, `E`
ellipse, `P` polygon, `L` line, and `G columns rows dx dy`, which repeats the next command on a
grid. Colours are `#rrggbb` or a letter of the type's palette. Every point goes through one random
placement, so no two photos are alike.
"""

import colorsys
import io
import json
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

SIZE = 300  # pixels per side
_EXIF_ORIENTATION = 0x0112
# How a photo with this EXIF orientation must be stored so that a viewer shows it upright.
_STORED_ROTATION = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
_ELLIPSE = tuple(
    (math.cos(step * math.pi / 12), math.sin(step * math.pi / 12)) for step in range(24)
)
_WHITE_SCENES = ("#ffffff", "#ffffff", "#fdfdfd", "#f6f6f4")
_PLAIN_BOXES = ("#c49a6c", "#b98d5e", "#d2d4d8", "#e8e6e0")

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


@lru_cache(maxsize=1)
def _motifs() -> dict[str, Any]:
    content = resources.files("product_classifier.ingest.sample_data").joinpath("motifs.json")
    motifs: dict[str, Any] = json.loads(content.read_text(encoding="utf-8"))
    return motifs


@dataclass(frozen=True)
class _Placement:
    """Where a motif stands: scaled, turned and moved on the canvas."""

    scale: float
    cos: float
    sin: float
    x: float
    y: float

    @classmethod
    def random(cls, rng: random.Random, tilt: float) -> "_Placement":
        angle = math.radians(rng.uniform(-tilt, tilt))
        scale = rng.uniform(0.68, 1.0) * SIZE / 100
        shift = 0.07 * SIZE
        return cls(
            scale,
            math.cos(angle),
            math.sin(angle),
            SIZE / 2 + rng.uniform(-shift, shift),
            SIZE / 2 + rng.uniform(-shift, shift),
        )

    def apply(self, points: Points) -> Points:
        moved = []
        for px, py in points:
            x, y = (px - 50) * self.scale, (py - 50) * self.scale
            moved.append(
                (self.x + x * self.cos - y * self.sin, self.y + x * self.sin + y * self.cos)
            )
        return moved


def _vary(colour: str, rng: random.Random, amount: float) -> Colour:
    red, green, blue = (channel / 255 for channel in ImageColor.getrgb(colour)[:3])
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    hue = (hue + rng.gauss(0, 0.04 * amount)) % 1
    saturation = min(max(saturation * rng.uniform(1 - 0.3 * amount, 1 + 0.2 * amount), 0), 1)
    value = min(max(value * rng.uniform(1 - 0.25 * amount, 1 + 0.15 * amount), 0), 1)
    red, green, blue = (
        round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)
    )
    return red, green, blue


def _shape(words: list[str]) -> tuple[str, Points, float]:
    """Reads one command as colour, outline and line width (0 for a filled shape)."""
    kind = words[0]
    if kind == "R":
        x0, y0, x1, y1 = map(float, words[1:5])
        return words[5], [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], 0
    if kind == "E":
        x, y, rx, ry = map(float, words[1:5])
        return words[5], [(x + rx * cos, y + ry * sin) for cos, sin in _ELLIPSE], 0
    numbers = list(map(float, words[3:] if kind == "L" else words[2:]))
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    return words[1], points, float(words[2]) if kind == "L" else 0


def _offsets(words: list[str]) -> Points:
    columns, rows, dx, dy = int(words[1]), int(words[2]), float(words[3]), float(words[4])
    return [(column * dx, row * dy) for row in range(rows) for column in range(columns)]


def _draw_motif(
    draw: ImageDraw.ImageDraw,
    commands: list[str],
    colours: dict[str, Colour],
    placement: _Placement,
) -> None:
    offsets: Points = [(0, 0)]
    for command in commands:
        words = command.split()
        if words[0] == "G":
            offsets = _offsets(words)
            continue
        name, outline, width = _shape(words)
        fill = colours.get(name) or ImageColor.getrgb(name)
        for dx, dy in offsets:
            points = placement.apply([(x + dx, y + dy) for x, y in outline])
            if width:
                draw.line(
                    points, fill=fill, width=max(1, round(width * placement.scale)), joint="curve"
                )
            else:
                draw.polygon(points, fill=fill)
        offsets = [(0, 0)]


@lru_cache(maxsize=1)
def _grain() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sensor noise, shape `(2 * SIZE, 2 * SIZE, 1)`: each photo takes another window of it."""
    noise = np.random.default_rng(0).normal(0, 1, (2 * SIZE, 2 * SIZE, 1))
    return noise.astype(np.float32)


def _photograph(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Adds what a camera adds: softness, uneven light and noise."""
    picture = picture.filter(ImageFilter.BoxBlur(rng.choice((0.6, 0.8, 1.2))))
    pixels = np.asarray(picture, dtype=np.float32)  # (SIZE, SIZE, 3)
    top, left = rng.randrange(SIZE), rng.randrange(SIZE)
    grain = _grain()[top : top + SIZE, left : left + SIZE] * rng.uniform(1, 6)
    light = np.linspace(rng.uniform(0.82, 1.02), rng.uniform(0.88, 1.06), SIZE, dtype=np.float32)
    lit = pixels * light[:, None, None] + grain
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


def draw_photo(code: str, rng: random.Random, *, clear: bool) -> Image.Image:
    """Draws one product photo.

    Args:
        code: A Rakuten product type code.
        rng: Decides everything that is random; the same state gives the same photo.
        clear: Whether the type shows. An unclear photo shows a parcel, or another type's object.
    """
    spec = _motifs()[code]
    scenes = spec.get("scene", _WHITE_SCENES)
    picture = Image.new("RGB", (SIZE, SIZE), _vary(rng.choice(scenes), rng, 0.3))
    draw = ImageDraw.Draw(picture)
    colours = {
        name: _vary(rng.choice(choices), rng, 1) for name, choices in spec["palette"].items()
    }
    placement = _Placement.random(rng, spec["tilt"])
    if not clear:
        return _photograph(_draw_unclear(picture, draw, placement, rng), rng)
    _draw_motif(draw, rng.choice(spec["motifs"]), colours, placement)
    return _photograph(picture, rng)


def _draw_unclear(
    picture: Image.Image, draw: ImageDraw.ImageDraw, placement: _Placement, rng: random.Random
) -> Image.Image:
    """Draws a product in its parcel, or another type's object in colours of chance."""
    draw.rectangle((0, 0, SIZE, SIZE), fill=_vary(rng.choice(_WHITE_SCENES), rng, 0.3))
    if rng.random() < 0.4:
        box = {"a": _vary(rng.choice(_PLAIN_BOXES), rng, 1), "b": _vary("#8a6a48", rng, 1)}
        _draw_motif(
            draw,
            ["R 16 26 84 84 a", "P b 16 26 26 14 94 14 84 26", "R 46 26 54 84 b"],
            box,
            placement,
        )
        return picture
    other = _motifs()[rng.choice(sorted(_motifs()))]
    palette = _motifs()[rng.choice(sorted(_motifs()))]["palette"]
    colours = {name: _vary(rng.choice(choices), rng, 1) for name, choices in palette.items()}
    _draw_motif(draw, rng.choice(other["motifs"]), colours, placement)
    return picture


def encode_photo(picture: Image.Image, rng: random.Random) -> bytes:
    """Encodes a photo as catalogues hold them: JPEG, at times PNG, CMYK or turned by EXIF."""
    kind = rng.random()
    buffer = io.BytesIO()
    quality = rng.randrange(70, 93)
    if kind < 0.03:
        picture.quantize(64).convert("RGB" if kind < 0.015 else "P").save(buffer, "PNG")
    elif kind < 0.05:
        picture.convert("CMYK").save(buffer, "JPEG", quality=quality)
    elif kind < 0.09:
        orientation = rng.choice(sorted(_STORED_ROTATION))
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        picture.transpose(_STORED_ROTATION[orientation]).save(
            buffer, "JPEG", quality=quality, exif=exif
        )
    else:
        picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
