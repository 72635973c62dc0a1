"""Multipart bodies: read with limits, into texts and uploaded files. Whatever comes, the answer is a 4xx or a form."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from product_classifier.web.problems import Problem

_FORM = b"multipart/form-data"
_CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin-1"})

FILE = {"type": "string", "format": "binary"}  # in OpenAPI


@dataclass(frozen=True)
class FormLimits:
    """What a form may hold at most. The body as a whole is limited before it is read."""

    fields: int
    field_bytes: int
    files: int


class _WholeForm(MultiPartParser):
    """Starlette's reader, strict where it is lenient.

    Where the last boundary is missing, it drops the part before it and tells nobody. What looks like a boundary and is
    none costs the parser steps of Python: 9 MB of such lines took 6 s of the event loop.
    """

    is_whole = False

    def on_end(self) -> None:
        """Notes the last boundary."""
        self.is_whole = True

    async def _count_boundaries(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        _, options = parse_options_header(self.headers.get("content-type"))
        boundary = b"\r\n--" + options.get(b"boundary", b"")
        # One for each part, the last one, and one by accident.
        left = self.max_fields + self.max_files + 2
        async for chunk in stream:
            left -= chunk.count(boundary)
            if left < 0:
                raise MultiPartException("Its boundary occurs more often than it may have parts.")
            yield chunk

    async def parse(self) -> FormData:
        """Reads the form; MultiPartException where it breaks off."""
        self.stream = self._count_boundaries(self.stream)
        form = await super().parse()
        if not self.is_whole:
            for file in self._files_to_close_on_error:  # that of the last part is not in the form
                file.close()
            raise MultiPartException("It has no last boundary.")
        return form


@asynccontextmanager
async def read_form(request: Request, limits: FormLimits) -> AsyncIterator[FormData]:
    """Reads a multipart body; large files go to disk, and are gone after the block.

    Raises:
        Problem: 415, the body is no multipart form; 400, it is broken or has too many or too large parts.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != _FORM or options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise Problem(
            415,
            "Unsupported Media Type",
            "The body must be multipart/form-data, its texts in UTF-8.",
        )
    parser = _WholeForm(
        request.headers,
        request.stream(),
        max_files=limits.files,
        max_fields=limits.fields,
        max_part_size=limits.field_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _broken(str(error.message)) from None
    except (ValueError, LookupError):  # what the parser below does not foresee
        raise _broken("The multipart body is not readable.") from None
    try:
        yield form
    finally:
        await form.close()


def _broken(detail: str) -> Problem:
    return Problem(400, "Bad Request", f"The form can't be read. {detail}")


def text_fields(form: FormData, names: Mapping[str, Any]) -> dict[str, str]:
    """Gives the texts of the fields that are named; an empty one counts as not sent, others are ignored.

    Raises:
        RequestValidationError: a field came twice, or as a file.
    """
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if name not in names:
            continue
        if not isinstance(value, str):
            raise invalid(name, "must be a text, not a file")
        if name in texts:
            raise invalid(name, "must come once")
        texts[name] = value
    return {name: text for name, text in texts.items() if text}


def files(form: FormData, field: str) -> list[UploadFile]:
    """Gives the files of a field; the nameless empty one that browsers send for no choice is none.

    Raises:
        RequestValidationError: the field came as a text.
    """
    found = []
    for value in form.getlist(field):
        if isinstance(value, UploadFile):
            if value.filename or value.size:
                found.append(value)
        elif value:
            raise invalid(field, "must be a file")
    return found


def invalid(field: str, message: str) -> RequestValidationError:
    """Says what is wrong with one field of a form."""
    return RequestValidationError([{"loc": ("body", field), "msg": message, "type": "value_error"}])


def as_request_error(error: ValidationError) -> RequestValidationError:
    """Says what a schema found wrong with a form, without the values."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in errors])


def describe_form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Describes a form in OpenAPI; FastAPI can't, since the routes read it themselves."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def describe_text(description: str, limit: int) -> dict[str, Any]:
    """Describes a text of at most `limit` characters."""
    return {"type": "string", "maxLength": limit, "description": description}
