"""One real product of the catalogue: for the proof of a deployment, and for the commands that `start` prints."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from product_classifier.core.catalogue import Product, load_products
from product_classifier.core.errors import ArtifactError, ProductClassifierError
from product_classifier.core.files import read_json, write_bytes_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.runtime.api_services import serve_url
from product_classifier.runtime.layout import Layout

PHOTO = "photo.jpg"
LONG = 5_000  # characters of a description: some are whole pages, no example for anybody
_READ_ANSWER = """python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'"""


@dataclass(frozen=True)
class Example:
    """A product as its catalogue has it; `photo` is None where there is none."""

    product: Product
    photo: bytes | None = field(repr=False)


def choose_example(workspace: Workspace) -> Example:
    """Chooses a product that training never saw: always the same one of a catalogue.

    That is the first one of the test split with a photo and a description, else with a photo, else
    the first one; where there is no split, of the unlabelled products.

    Raises:
        ProductClassifierError: there is no catalogue, or it is empty.
    """
    store = _photos(workspace)
    try:
        products = sorted(_unseen(workspace), key=lambda product: product.row)
        if not products:
            raise ArtifactError(f"{workspace.raw} holds no product to try: run the data stage.")
        pictured = [p for p in products if store is not None and p.photo_name in store]
        described = [p for p in pictured if p.title.strip() and 0 < len(p.description) < LONG]
        titled = [p for p in products if p.title.strip()]
        chosen = (described or pictured or titled or products)[0]
        return Example(chosen, store.read(chosen.photo_name) if store is not None else None)
    finally:
        if store is not None:
            store.close()


def _photos(workspace: Workspace) -> PhotoStore | None:
    try:
        return PhotoStore(workspace.raw)
    except ArtifactError:
        return None


def _unseen(workspace: Workspace) -> Iterator[Product]:
    splits = workspace.raw / "splits.json"
    if splits.is_file() and (rows := set(read_json(splits).get("test", ()))):
        yield from (p for p in load_products(workspace.raw / TRAIN_FILE) if p.row in rows)
    else:
        yield from load_products(workspace.raw / TEST_FILE)


def write_example_photo(layout: Layout, example: Example) -> Path | None:
    """Leaves the product's photo in the state's folder; None where it has none."""
    if example.photo is None:
        return None
    path = layout.example / PHOTO
    if not path.exists() or path.read_bytes() != example.photo:
        write_bytes_atomic(path, example.photo)
    return path


def _password_source(layout: Layout, settings: Settings, exported: bool) -> list[str]:
    """Gives shell lines; the last one writes the administrator's password to its output.

    No password is an argument of a program: those are readable by everybody on the machine.
    """
    secret = settings.admin_password
    if exported:
        return ["""printf %s "$ADMIN_PASSWORD\""""]
    lines = layout.dotenv.read_text(encoding="utf-8").splitlines() if layout.dotenv.exists() else []
    last = [
        line.removeprefix("ADMIN_PASSWORD=") for line in lines if line.startswith("ADMIN_PASSWORD=")
    ]
    if secret is not None and last and last[-1] == secret.get_secret_value():
        return ["sed -n 's/^ADMIN_PASSWORD=//p' .env | tail -n 1 | tr -d '\\n'"]
    # In .env, but quoted or written in another way than a line of text tools reads it.
    return ["read -rs ADMIN_PASSWORD", """printf %s "$ADMIN_PASSWORD\""""]


def example_commands(
    layout: Layout, settings: Settings, workspace: Workspace, *, exported: bool
) -> list[str]:
    """Writes the shell commands for a token and for a prediction, to be run in the checkout.

    Args:
        layout: The checkout.
        settings: Address and administrator of the API.
        workspace: Where the catalogue is.
        exported: Whether ADMIN_PASSWORD is set in the caller's environment, not in `.env`.
    """
    base = serve_url(settings).replace("127.0.0.1", "localhost")
    *before, password = _password_source(layout, settings, exported)
    user = shlex.quote(f"username={settings.admin_user}")
    token = (
        f"TOKEN=$({password} | curl -s {base}/token --data-urlencode {user} "
        f"--data-urlencode password@- | {_READ_ANSWER})"
    )
    return [*before, token, _prediction_command(layout, workspace, base)]


def _prediction_command(layout: Layout, workspace: Workspace, base: str) -> str:
    photo, title = None, "Piscine gonflable"
    try:
        example = choose_example(workspace)
    except ProductClassifierError:
        pass  # no catalogue on this machine: any title is a real request
    else:
        title = " ".join(example.product.title.split()) or title
        photo = write_example_photo(layout, example)
    image = f" -F image=@{photo.relative_to(layout.root)}" if photo else ""
    text = shlex.quote(f"designation={title}")
    # The token comes over standard input too: headers are arguments like others.
    return (
        f'echo "Authorization: Bearer $TOKEN" | curl -s {base}/predict -H @- '
        f"--form-string {text}{image}"
    )
