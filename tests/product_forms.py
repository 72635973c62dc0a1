"""Products as requests: what is known of them, how other ones look, and the forms that they are sent in."""

import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageEnhance

from product_classifier.core.catalogue import load_products
from product_classifier.core.files import read_json
from product_classifier.core.workspace import TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore

_BOUNDARY = "b0undary"
MULTIPART = f"multipart/form-data; boundary={_BOUNDARY}"
_ENGLISH = (
    "vintage leather notebook with brass clasp and lined pages",
    "wireless gaming headset with noise cancelling microphone",
    "set of six stainless steel kitchen knives with wooden block",
    "waterproof hiking backpack for women with rain cover",
    "wooden railway starter kit for young children aged three and above",
)


class Item(NamedTuple):
    """What one prediction is asked for."""

    title: str | None
    description: str | None
    photo: bytes | None


def held_out_items(workspace: Workspace) -> list[Item]:
    """The products of a trained workspace that training never saw."""
    rows = set(read_json(workspace.raw / "splits.json")["test"])
    photos = PhotoStore(workspace.raw / "photos")
    try:
        return [
            Item(product.title, product.description or None, photos.read(product.photo_name))
            for product in load_products(workspace.raw / TRAIN_FILE)
            if product.row in rows
        ]
    finally:
        photos.close()


def drifted(item: Item, number: int) -> Item:
    """The product as another shop would send it: titles in English, photos at half the light."""
    photo = None if item.photo is None else darken(item.photo, 0.5)
    return item._replace(title=_ENGLISH[number % len(_ENGLISH)], photo=photo)


def darken(photo: bytes, share: float) -> bytes:
    """Dims a photo to a share of its brightness."""
    with Image.open(io.BytesIO(photo)) as image:
        dark = ImageEnhance.Brightness(image.convert("RGB")).enhance(share)
    buffer = io.BytesIO()
    dark.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def form_of(item: Item) -> bytes:
    """A product as the body of `POST /predict`."""
    texts = {"designation": item.title, "description": item.description}
    parts = [_text_part(name, value) for name, value in texts.items() if value]
    if item.photo is not None:
        parts.append(_photo_part("image", "photo.jpg", item.photo))
    return _form(parts)


def batch_form_of(items: Sequence[Item]) -> bytes:
    """Products as the body of `POST /predict/batch`."""
    products, photos = [], []
    for number, item in enumerate(items):
        texts = {"designation": item.title, "description": item.description}
        product = {name: value for name, value in texts.items() if value}
        if item.photo is not None:
            product["image"] = f"{number}.jpg"
            photos.append(_photo_part("images", f"{number}.jpg", item.photo))
        products.append(product)
    return _form([_text_part("products", json.dumps(products)), *photos])


def _form(parts: Sequence[bytes]) -> bytes:
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def _text_part(name: str, value: str) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{value}\r\n".encode()


def _photo_part(name: str, file: str, content: bytes) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + content + b"\r\n"
