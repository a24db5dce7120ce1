"""What a picture looks like, in a few bytes that survive re-encoding, scaling and small changes of brightness."""

import base64
import itertools

import numpy as np
from PIL import Image
from scipy.fft import dct

# The perceptual hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010): which of
# the 8 x 8 lowest frequencies of a 32 x 32 picture are stronger than their median.
_SAMPLED, _KEPT = 32, 8
_HASH_DIGITS = 16
_BASIS = dct(np.eye(_SAMPLED, dtype=np.float32), norm="ortho", axis=0)[:_KEPT]

# Of CIFAR-10 photos that were re-encoded (quality 50 and 80), halved or enlarged, 99 % and more stay within these bits.
_MOST_BITS = 4
# Different digits whose hashes are as close correlate by 0.987 at most; 88 % of the photos that were re-encoded with
# quality 50 by more than this, and all with quality 80, halved or enlarged.
_LEAST_CORRELATION = 0.99
# In levels of gray, of 255; below is noise.
_LEAST_CONTRAST = 2.0


def describe(gray: Image.Image) -> str:
    """Describes a picture.

    Args:
        gray: a picture of mode "L".

    Returns:
        The 64-bit perceptual hash in 16 hex digits, then an 8 x 8 picture in Base64. Empty for an even surface, which
        nothing can be told of.
    """
    thumbnail = gray.resize((_KEPT, _KEPT), Image.Resampling.BOX)
    if np.asarray(thumbnail).std() < _LEAST_CONTRAST:
        return ""
    levels = np.asarray(gray.resize((_SAMPLED, _SAMPLED), Image.Resampling.LANCZOS), np.float32)
    strengths = (_BASIS @ levels @ _BASIS.T).ravel()
    # Without the first one, which is the mean brightness.
    bits = strengths > np.sort(strengths[1:])[(len(strengths) - 1) // 2]
    return np.packbits(bits).tobytes().hex() + base64.b64encode(thumbnail.tobytes()).decode()


def perceptual_hash(description: str) -> int:
    """Returns the perceptual hash in a description, a number of 64 bits."""
    return int(description[:_HASH_DIGITS], 16)


def alike(one: str, other: str) -> bool:
    """Tells whether two descriptions are of the same picture, as far as that can be told."""
    if (perceptual_hash(one) ^ perceptual_hash(other)).bit_count() > _MOST_BITS:
        return False
    return float(_standardized(one) @ _standardized(other)) >= _LEAST_CORRELATION


def close_pairs(unique: np.ndarray, groups: np.ndarray, most: int) -> np.ndarray | None:
    """Finds the hashes that differ in few bits.

    Two numbers of 64 bits that differ in k of them agree in one of k + 1 bands at least, so that only hashes with an
    equal band need comparing (Manku, Jain and Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007).

    Args:
        unique: different hashes, uint64 [N].
        groups: which groups each is in, a bit for each group, uint8 [N]; pairs in one and the same group do not count.
        most: Where it finds more pairs than this, it gives up.

    Returns:
        Indices of the pairs, int [M, 2], each pair once; None if it gave up.
    """
    edges = np.linspace(0, 64, _MOST_BITS + 2).astype(np.uint64)
    found, count = [np.empty((0, 2), int)], 0
    for low, high in itertools.pairwise(edges):
        bands = (unique << (np.uint64(64) - high)) >> (np.uint64(64) - high + low)
        order = np.argsort(bands, kind="stable")
        bands = bands[order]
        # In this order, what is compared with its neighbour, then with the one after that, leaves the comparison for
        # good where its band ends.
        here, step = np.arange(len(order)), 1
        while len(here := here[here + step < len(order)]) and len(here := here[bands[here] == bands[here + step]]):
            one, other = order[here], order[here + step]
            together = groups[one] | groups[other]
            wanted = (_ones(unique[one] ^ unique[other]) <= _MOST_BITS) & (together & (together - 1) != 0)
            found.append(np.column_stack([one[wanted], other[wanted]]))
            if (count := count + len(found[-1])) > most * len(edges):
                return None
            step += 1
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs if len(pairs) <= most else None


def _ones(words: np.ndarray) -> np.ndarray:
    """Counts the ones of each number, uint64 [N] (Warren, "Hacker's Delight", section 5-1)."""
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    words = (words & np.uint64(0x3333333333333333)) + ((words >> np.uint64(2)) & np.uint64(0x3333333333333333))
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (words * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _standardized(description: str) -> np.ndarray:
    """Returns the small picture with a mean of 0 and a length of 1: the product of two is how they correlate."""
    levels = np.frombuffer(base64.b64decode(description[_HASH_DIGITS:]), np.uint8).astype(np.float64)
    levels -= levels.mean()
    return levels / np.sqrt(levels @ levels)
