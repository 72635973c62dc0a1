"""The small changes of PromQL that a rules test must notice."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*")
    |(?P<range>\[[^\]]*\])
    |(?P<labels>\b(?:by|on)\s*\([^)]*\))
    |(?P<word>[A-Za-z_:][\w:]*)
    |(?P<duration>\d+[smhd]\b)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<operator>==|!=|<=|>=|[<>+\-*/])
    |(?P<open>\{)
    |(?P<other>\s+|.)""",
    re.VERBOSE | re.DOTALL,
)
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OTHER_OPERATORS = {
    ">": (">=", "<"),
    ">=": (">", "<"),
    "<": ("<=", ">"),
    "<=": ("<", ">"),
    "==": ("!=",),
    "!=": ("==",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
}
_OTHER_WORDS = {
    "and": ("or", "unless"),
    "or": ("and", "unless"),
    "unless": ("and", "or"),
    "max": ("min",),
    "min": ("max",),
    "sum": ("max", "count"),
}
_NEGATED = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}

# What stands there, and what takes its place.
Replacement = tuple[str, str]


def mutate_duration(text: str) -> tuple[str, str]:
    """Halves and doubles a duration of one unit, as `5m`.

    Raises:
        ValueError: `text` is no such duration.
    """
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise ValueError(f"Expected a duration of one unit, as 5m. Received: {text!r}.")
    seconds = int(matched[1]) * _SECONDS[matched[2]]
    return f"{seconds // 2}s", f"{seconds * 2}s"


def mutate_expression(expression: str) -> Iterator[tuple[str, str]]:
    """Yields every small change of a PromQL expression.

    Yields:
        What was changed, numbered where the same stands there several times; and the changed expression.
    """
    seen: dict[str, int] = {}
    position = 0
    while position < len(expression):
        start, end, changes = _at(expression, position)
        for before, after in changes:
            text = f"{before} -> {after or 'nothing'}"
            seen[text] = seen.get(text, 0) + 1
            number = f" ({seen[text]})" if seen[text] > 1 else ""
            changed = expression[start:end].replace(before, after, 1)
            yield text + number, expression[:start] + changed + expression[end:]
        position = end


def _at(expression: str, position: int) -> tuple[int, int, list[Replacement]]:
    """Finds the token at a position: where it begins and ends, and its changes."""
    matched = _TOKEN.match(expression, position)
    assert matched is not None  # `other` takes any character
    kind, text = matched.lastgroup, matched.group()
    if kind == "open":
        end = expression.index("}", position) + 1
        return position, end, list(_selector_changes(expression[position:end]))
    changes: dict[str, list[Replacement]] = {
        "range": list(_range_changes(text)) if kind == "range" else [],
        "labels": list(_label_changes(text)) if kind == "labels" else [],
        "duration": [(text, other) for other in _duration_changes(text, kind)],
        "word": [(text, other) for other in _OTHER_WORDS.get(text, ())],
        "number": [(text, other) for other in _number_changes(text)] if kind == "number" else [],
        "operator": [(text, other) for other in _OTHER_OPERATORS.get(text, ())],
    }
    return position, matched.end(), changes.get(kind or "", [])


def _duration_changes(text: str, kind: str | None) -> tuple[str, ...]:
    return mutate_duration(text) if kind == "duration" else ()


def _number_changes(text: str) -> tuple[str, ...]:
    value = float(text)
    if value in (0, 1):
        return f"{value - 1:g}", f"{value + 1:g}"
    return f"{value * 0.9:g}", f"{value * 1.1:g}"


def _range_changes(text: str) -> Iterator[Replacement]:
    for duration in mutate_duration(text[1:-1]):
        yield text, f"[{duration}]"


def _label_changes(text: str) -> Iterator[Replacement]:
    """Leaves out each label of `by (...)` or `on (...)`."""
    head, _, rest = text.partition("(")
    labels = [label.strip() for label in rest.rstrip(")").split(",") if label.strip()]
    for left_out in labels:
        kept = ", ".join(label for label in labels if label != left_out)
        yield text, f"{head}({kept})"


def _selector_changes(text: str) -> Iterator[Replacement]:
    """Negates each matcher, leaves it out, and leaves out each alternative of a regular expression."""
    for matched in _MATCHER.finditer(text):
        label, operator, value = matched.groups()
        whole = matched.group()
        yield whole, f'{label}{_NEGATED[operator]}"{value}"'
        yield _with_comma(text, whole), ""
        alternatives = value.split("|") if operator in ("=~", "!~") else []
        for left_out in alternatives if len(alternatives) > 1 else []:
            kept = "|".join(each for each in alternatives if each != left_out)
            yield whole, f'{label}{operator}"{kept}"'


def _with_comma(text: str, matcher: str) -> str:
    """Adds the comma after or before a matcher, which goes with it."""
    for candidate in (f"{matcher},", f",{matcher}"):
        if candidate in text:
            return candidate
    return matcher
