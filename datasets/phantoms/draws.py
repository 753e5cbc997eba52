"""What is random in a table of phantoms, for all rows at once and for each row by its number alone.

Row i of a table depends on (seed, i) and on what is planted, never on how many rows there are: everything here gives
the same beginning when more is asked for. A `SeedSequence` for each of 60,000 rows would take a second; these are
array operations and take a few milliseconds.
"""

import zlib

import numpy as np

FEW = 3
"""So many of every class come first, so that a handful of images still has all classes."""


def hashed(seed: int, stream: str, number: np.ndarray) -> np.ndarray:
    """uint64 of the shape of `number`: random, but always the same for a seed, a stream and a number.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 16), twice.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        key = _mixed(np.array(seed % 2**64, np.uint64) + _mixed(np.array(zlib.crc32(stream.encode()), np.uint64)))
        return _mixed(key + (np.asarray(number).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def _mixed(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def uniform(seed: int, stream: str, number: np.ndarray) -> np.ndarray:
    """float64 in [0, 1), otherwise as `hashed`."""
    return (hashed(seed, stream, number) >> np.uint64(11)) / 2.0**53


def interleaved(counts: np.ndarray, images: int) -> np.ndarray:
    """The stratum of each of so many images, int64: every stratum spread evenly over the whole.

    `counts` of shape (strata,) is how often each occurs among the first `counts.sum()` images, exactly. Of fewer images
    the shares are the same within about one image, but for the first `FEW` of each, which come in turn; of more
    images too.
    """
    strata = np.repeat(np.arange(len(counts)), counts)
    nth = np.concatenate([np.arange(count) for count in counts])
    place = (nth + 0.5) / counts[strata]
    once = strata[np.argsort(place, kind="stable")]
    in_turn = nth - FEW + strata / len(counts)  # below 0 for the first few, above every one of them for the rest
    first = strata[np.argsort(np.where(nth < FEW, in_turn, place), kind="stable")]
    return np.concatenate([first, np.resize(once, max(images - len(once), 0))])[:images]


def ranks(labels: np.ndarray) -> np.ndarray:
    """How many earlier rows have the same label, int64."""
    order = np.argsort(labels, kind="stable")
    grouped = labels[order]
    begins = np.r_[True, grouped[1:] != grouped[:-1]][: len(labels)]
    place = np.arange(len(labels))
    found = np.empty(len(labels), np.int64)
    found[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return found


def earlier(number: np.ndarray, wanted: np.ndarray, chance: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """For each of `number` the number of some earlier row whose stratum is the one `wanted`, or -1 if there is none.

    `chance` in [0, 1) says which; `strata` is the stratum of every row, -1 for rows that must not be taken.
    """
    found = np.full(len(number), -1)
    for stratum in np.unique(wanted):
        here, there = wanted == stratum, np.flatnonzero(strata == stratum)
        before = np.searchsorted(there, number[here])
        choice = np.append(there, -1)[(chance[here] * before).astype(np.int64)]
        found[here] = np.where(before > 0, choice, -1)
    return found
