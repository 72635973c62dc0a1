"""The population stability index, and how large it gets by chance.

PSI = sum over bins of (q - p) ln(q / p), with the shares p of the reference and q of the window. From 0.2 on a shift is
usually called large (Siddiqi, Credit Risk Scorecards, 2006). That convention knows no sample size: of two samples of n
and m products with one distribution over B bins, PSI is about (1/n + 1/m) times a chi-squared variable with B - 1
degrees of freedom (Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk
Model Validation 14(4), 2020). With 200 classes and 500 products its mean is 0.5 where nothing has changed. So the limit
is the larger of 0.2 and what chance stays below.
"""

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LARGE_SHIFT = 0.2
# Chance for one window. At one product a second 500 products pass 63,000 times a year, eight features are looked at,
# and a rolling window tries about 20 times as often as separate ones would (its highest value counts): 1e-8 makes that
# one false alarm in ten years. It costs little: the limit grows with the logarithm only.
CHANCE = 1e-8
MIN_PRODUCTS = 50  # fewer say nothing
WINDOW_SIZES = (50, 100, 200, 500, 1000, 2000, 5000, 20_000)
# Added to every count, so that an empty bin has a logarithm: Jeffreys' prior.
SMOOTHING = 0.5
_DRAWS = 1500
_SEED = 0


def stability_index(
    reference: NDArray[np.int64] | list[int], window: NDArray[np.int64] | list[int]
) -> float:
    """Gives the PSI of two lists of counts over the same bins, both smoothed."""
    return float(_indices(np.asarray(reference)[None], np.asarray(window)[None])[0])


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    smoothed = counts + SMOOTHING
    shares: NDArray[np.float64] = smoothed / smoothed.sum(axis=-1, keepdims=True)
    return shares


def _indices(reference: NDArray[np.int64], window: NDArray[np.int64]) -> NDArray[np.float64]:
    p, q = _shares(reference), _shares(window)
    found: NDArray[np.float64] = ((q - p) * np.log(q / p)).sum(axis=-1)
    return found


def deviations(chance: float = CHANCE) -> float:
    """Gives how many standard deviations a normal variable exceeds with that chance, on one side."""
    return -NormalDist().inv_cdf(chance)


def chance_bound(reference: list[int], products: int, chance: float = CHANCE) -> float:
    """Finds the PSI that a window without drift exceeds with about the given chance.

    Reference and window are both drawn, many times, from the reference's own (smoothed) shares: so the bound knows
    both sample sizes, the smoothing, and bins with few products or none, where the textbook's chi-squared variable
    is wrong (200 classes in 50 products: 8.3 instead of 1.2). A tail of 1e-8 can't be counted; mean and variance of
    the draws give a scaled chi-squared variable (Satterthwaite, Biometrics Bulletin 2(6), 1946) whose quantile is
    taken by Wilson and Hilferty's formula (PNAS 17(12), 1931), which errs upwards so far out.

    Args:
        reference: Counts per bin, B of them.
        products: Products in the window.
        chance: Of one window.

    Raises:
        ValueError: there are fewer than two bins: their shares can't differ.
    """
    if len(reference) < 2:
        raise ValueError(f"Chance needs at least two bins. Received: {reference}.")
    counts = np.asarray(reference, dtype=np.int64)
    shares = _shares(counts)
    rng = np.random.default_rng(_SEED)
    drawn = _indices(
        rng.multinomial(int(counts.sum()), shares, size=_DRAWS),
        rng.multinomial(products, shares, size=_DRAWS),
    )
    mean, variance = float(drawn.mean()), float(drawn.var())
    freedom = 2 * mean * mean / variance
    spread = 2 / (9 * freedom)
    root: float = 1 - spread + deviations(chance) * spread**0.5
    return float(mean * root**3)


def chance_table(reference: list[int]) -> list[tuple[int, float]]:
    """Gives `chance_bound` for every size in `WINDOW_SIZES`: training does the drawing, serving looks it up."""
    return [(size, round(chance_bound(reference, size), 4)) for size in WINDOW_SIZES]


def limit_for(table: tuple[tuple[int, float], ...], products: int) -> float:
    """Gives the PSI from which on a window of so many products has drifted.

    Between two sizes the bound is nearly a straight line in 1/n. A window larger than the last size gets that one's.
    """
    return max(LARGE_SHIFT, _interpolate(table, max(MIN_PRODUCTS, products)))


@lru_cache(maxsize=4096)
def _interpolate(table: tuple[tuple[int, float], ...], products: int) -> float:
    # np.interp wants rising positions: 1/n of the sizes backwards.
    positions = [1 / size for size, _ in reversed(table)]
    return float(np.interp(1 / products, positions, [bound for _, bound in reversed(table)]))
