"""Numbers with their units as Grafana writes them."""

import math

_DURATIONS = (
    (1e-3, 1e-6, "µs"),
    (1, 1e-3, "ms"),
    (60, 1, "s"),
    (3600, 60, "mins"),
    (86_400, 3600, "hours"),
    (604_800, 86_400, "days"),
    (math.inf, 604_800, "weeks"),
)
_WORDS = {"reqps": " req/s", "ops": " ops/s"}


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Writes a value of a Grafana unit.

    Raises:
        ValueError: The unit is not one that the dashboards use.
    """
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{_digits(100 * value, decimals)} %"
    if unit == "s":
        return _duration(value, decimals)
    if unit in {"bytes", "Bps"}:
        return _bytes(value, unit, decimals)
    if unit in _WORDS:
        return _digits(value, decimals) + _WORDS[unit]
    if unit in {"short", "none"}:
        return _short(value, decimals) if unit == "short" else _digits(value, decimals)
    raise ValueError(f"Unknown unit. Expected one of those in {__name__}. Received: {unit}.")


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0 or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _short(value: float, decimals: int | None) -> str:
    for size, letter in ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return _digits(value, decimals)


def _duration(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    size, name = next((size, name) for end, size, name in _DURATIONS if abs(value) < end)
    return f"{_digits(value / size, decimals)} {name}"


def _bytes(value: float, unit: str, decimals: int | None) -> str:
    step, prefixes = (
        (1024, ("", "Ki", "Mi", "Gi", "Ti"))
        if unit == "bytes"
        else (1000, ("", "k", "M", "G", "T"))
    )
    place = min(int(math.log(abs(value), step)), len(prefixes) - 1) if abs(value) >= 1 else 0
    end = "B" if unit == "bytes" else "B/s"
    return f"{_digits(value / step**place, decimals)} {prefixes[place]}{end}"
