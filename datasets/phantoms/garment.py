"""Procedural garments in the form of Fashion-MNIST: one piece, lit from the front, gray on black, 28 px.

Each of the ten kinds is cut from a few measures that vary from piece to piece (how wide the body, how long the sleeves,
how high the heel), sewn from polygons in two or three tones, and may have a print, stripes or checks. Tops share one
cut, and differ in what a person tells them apart by: sleeves, collar, buttons, lapels, rib. Some shirts hardly differ
from a T-shirt, a pullover or a coat, as in the real set, where people reach an accuracy of 0.835.

Coordinates are pixels of the final image, x to the right and y down; tones are gray values.
"""

from collections.abc import Callable

import numpy as np

from datasets.phantoms.cloth import MIDDLE, SIZE_PX, Cloth, pattern
from datasets.phantoms.shoe import bag, boot, sandal, sneaker

VERSION = "garment-1"
"""Part of the content of a phantom: raise it when the same seed no longer gives the same garment."""


def garment(rng: np.random.Generator, kind: int) -> np.ndarray:
    """A piece of the kind 0 to 9 of Fashion-MNIST, uint8 of shape (28, 28), drawn from `rng` alone."""
    cloth = Cloth(rng)
    return cloth.finished(_KINDS[kind](cloth))


def _top(
    cloth: Cloth, sleeve: float, hem_y: float, width: float, neck: float = 2.6, depth: float = 1.6, flare: float = 0.4
) -> tuple[float, float]:
    """The body and sleeves that tops share; `sleeve` from 0 (none) to 1 (to the wrist).

    Returns the y of the top and half the width of the hem.
    """
    vary = cloth.vary
    top = vary(0.6, 2.2)
    shoulder, shoulder_y = width + vary(-0.2, 0.6), top + vary(1.0, 2.0)
    armpit_y = shoulder_y + vary(4.6, 6.2)
    hem = width + vary(-0.5, 0.5) + flare
    if sleeve:
        spread = vary(1.2, 4.2) if sleeve > 0.6 else vary(2.4, 4.6)
        end_x, end_y = shoulder + spread, shoulder_y + sleeve * vary(17, 20.5)
        end_x = min(end_x, 13.2)
        cuff = vary(1.7, 2.5) if sleeve > 0.6 else vary(2.8, 4.0)
        elbow = (shoulder + 0.62 * spread + 0.5, 0.5 * (shoulder_y + end_y))
        outer = [(shoulder - 0.8, shoulder_y - 0.3), (shoulder + 0.4, shoulder_y + 0.5), elbow, (end_x, end_y)]
        cloth.both([*outer, (end_x - cuff, end_y + vary(0.0, 0.8)), (width - 0.6, armpit_y + 0.6)], vary(0.82, 1.0))
        if sleeve > 0.6 and cloth.rng.random() < 0.6:
            cloth.both(
                [(end_x, end_y), (end_x - cuff, end_y + 0.4), (end_x - cuff, end_y - 1), (end_x, end_y - 1.3)], 0.75
            )
    waist = width - vary(0.0, 0.7)
    right = [(neck, top), (shoulder, shoulder_y), (width, armpit_y), (waist, 0.6 * hem_y + 4), (hem, hem_y)]
    hang = hem_y + vary(-0.3, 0.7)
    outline = [(MIDDLE + x, y) for x, y in right] + [(MIDDLE, hang)] + [(MIDDLE - x, y) for x, y in right[::-1]]
    cloth.piece(outline)
    if sleeve:
        for side in (-1, 1):
            cloth.seam([(MIDDLE + side * shoulder, shoulder_y), (MIDDLE + side * width, armpit_y + 0.5)], 0.78, 0.5)
    cloth.neckline(top, neck, depth)
    return top, hem


def _t_shirt(cloth: Cloth) -> np.ndarray | float:
    sleeve = 0.0 if cloth.rng.random() < 0.1 else cloth.vary(0.2, 0.36)
    deep = cloth.rng.random() < 0.25
    top, _ = _top(
        cloth,
        sleeve,
        cloth.vary(25.5, 27.4),
        cloth.vary(6.6, 8.6),
        cloth.vary(2.2, 3.6),
        cloth.vary(2.4, 4) if deep else cloth.vary(1, 2),
    )
    if cloth.rng.random() < 0.4:  # a print on the chest
        x, y = MIDDLE + cloth.vary(-0.6, 0.6), top + cloth.vary(8, 12)
        cloth.hole(x, y, cloth.vary(1.4, 3.6), cloth.vary(1, 3.4), cloth.gray(cloth.rng.choice([0.4, 0.6, 1.5])))
        cloth.seam([(x - 2, y), (x + 2, y + cloth.vary(-1, 1))], cloth.vary(0.5, 1.4), 0.8)
    return pattern(cloth, plain=0.75)


def _trouser(cloth: Cloth) -> np.ndarray | float:
    vary = cloth.vary
    top, waist, hip = vary(0.4, 1.6), vary(3.6, 5.0), vary(4.8, 6.2)
    crotch, ankle, gap = vary(8.5, 11.5), vary(2.4, 4.0), vary(0.15, 1.6)
    foot = vary(26, 27.6)
    half = [(0, top + 0.4), (waist, top), (hip, top + 6), (gap + ankle + 0.3 * (hip - ankle), 17), (gap + ankle, foot)]
    cloth.both([*half, (gap, foot + 0.2), (0.15 + 0.3 * gap, 0.5 * (crotch + foot)), (0, crotch)])
    cloth.seam([(MIDDLE, top), (MIDDLE, crotch)], 0.7)
    if gap < 0.5:
        cloth.seam([(MIDDLE, crotch), (MIDDLE, foot)], 0.35, 0.7)
    cloth.both([(0, top + 0.3), (waist, top), (waist + 0.2, top + 1.2), (0, top + 1.6)], vary(0.65, 1.15))
    if cloth.rng.random() < 0.5:
        for side in (-1, 1):
            cloth.seam([(MIDDLE + side * waist * 0.55, top + 1.5), (MIDDLE + side * hip * 0.92, top + 4)], 0.7, 0.4)
    lit = 1 + vary(0, 0.25) * np.cos((np.arange(SIZE_PX) - MIDDLE + 0.5) / 4.5 * 2 * np.pi)  # a crease along each leg
    return (0.95 * lit[None, :]).astype(np.float32)


def _pullover(cloth: Cloth) -> np.ndarray | float:
    hem_y = cloth.vary(24, 27)
    neck = cloth.vary(2.2, 3.2)
    top, hem = _top(cloth, cloth.vary(0.92, 1.08), hem_y, cloth.vary(6.6, 8.6), neck, cloth.vary(0.9, 1.6), flare=0)
    if cloth.rng.random() < 0.75:  # ribs at the hem and the neck
        cloth.seam([(MIDDLE - hem, hem_y - 1.8), (MIDDLE + hem, hem_y - 1.8)], 0.72, 0.6)
    cloth.bow(MIDDLE, top + 0.2, neck + 0.4, -1.9, 0.75, 1.0)
    if cloth.rng.random() < 0.12:  # a hood
        cloth.piece([(MIDDLE - 4, 3), (MIDDLE - 2, 0.4), (MIDDLE + 2, 0.4), (MIDDLE + 4, 3), (MIDDLE, 6)], 0.85)
    return pattern(cloth, plain=0.6)


def _dress(cloth: Cloth) -> np.ndarray | float:
    vary, rng = cloth.vary, cloth.rng
    top, neck, chest = vary(0.4, 1.4), vary(1.6, 2.8), vary(4.0, 5.4)
    waist, waist_y = chest - vary(0.2, 1.2), vary(9, 12.5)
    hem, hem_y = waist + (vary(0.4, 2) if rng.random() < 0.55 else vary(2, 5.5)), vary(25.8, 27.6)
    sleeve = rng.random()
    if sleeve < 0.45:
        long = vary(2, 5) if sleeve < 0.25 else vary(9, 15)
        end = (min(chest + 1 + 0.3 * long, chest + 3.6), top + 1.5 + long)
        cloth.both(
            [(neck, top), (chest + 0.3, top + 1), end, (end[0] - 1.8, end[1] + 0.3), (chest - 0.5, top + 6.5)], 0.88
        )
    shoulder = (chest - vary(0, 0.8), top + vary(0.5, 1.2))
    half = [
        (0, top + 1),
        (neck, top),
        shoulder,
        (chest, top + 5.5),
        (waist, waist_y),
        (0.5 * (waist + hem) + vary(0, 1), 19),
        (hem, hem_y),
        (0, hem_y + 0.5),
    ]
    cloth.both(half)
    cloth.neckline(top, neck, vary(1.4, 4))
    if rng.random() < 0.5:
        cloth.seam([(MIDDLE - waist, waist_y), (MIDDLE + waist, waist_y)], vary(0.4, 0.8), vary(0.5, 1.2))
    if rng.random() < 0.4:  # folds of the skirt
        for x in np.linspace(-0.6, 0.6, 3):
            cloth.seam([(MIDDLE + x * waist, waist_y + 2), (MIDDLE + x * hem, hem_y)], 0.8, 0.4)
    return pattern(cloth, plain=0.6)


def _coat(cloth: Cloth) -> np.ndarray | float:
    vary = cloth.vary
    hem_y = vary(25.4, 27.6)
    top, hem = _top(cloth, vary(0.98, 1.12), hem_y, vary(6.6, 8.6), vary(1.8, 2.6), vary(0.8, 1.6), flare=vary(0, 0.8))
    dark = vary(0.35, 0.7)
    open_x = vary(0, 0.8)
    cloth.seam([(MIDDLE, top + 2), (MIDDLE + open_x, hem_y + 0.4)], dark, vary(0.5, 1.1))
    if cloth.rng.random() < 0.7:  # lapels
        low = top + vary(5, 9)
        cloth.both([(0.3, low), (2.4, top + 0.2), (3.6, top + 2.4), (2.6, top + 4)], vary(0.7, 0.9))
    else:  # a stand-up collar or a hood
        cloth.both([(0, top + 2.6), (0, top + 0.6), (2.4, top - 0.5), (3.2, top + 1.4)], vary(0.65, 1.2))
    if cloth.rng.random() < 0.6:
        for y in np.arange(top + 9, hem_y - 3, vary(3, 4.5)):
            cloth.hole(MIDDLE + vary(0.8, 1.0), y, 0.45, 0.45, cloth.gray(0.3))
    if cloth.rng.random() < 0.6:  # pockets
        for side in (-1, 1):
            cloth.seam([(MIDDLE + side * 2.4, 18.5), (MIDDLE + side * (hem - 1.6), 17.6)], dark, 0.6)
    return pattern(cloth, plain=0.85)


def _shirt(cloth: Cloth) -> np.ndarray | float:
    vary = cloth.vary
    sleeve = vary(0.92, 1.08) if cloth.rng.random() < 0.65 else vary(0.22, 0.4)
    hem_y = vary(25, 27.6)
    top, _ = _top(cloth, sleeve, hem_y, vary(6.2, 8.0), vary(1.9, 2.8), vary(1.0, 2.4))
    if cloth.rng.random() < 0.75:
        cloth.both([(0.1, top + 3.2), (2.3, top - 0.4), (3.1, top + 1.0), (1.7, top + 3.4)], vary(0.8, 1.2))
        cloth.seam([(MIDDLE, top + 3), (MIDDLE, hem_y)], vary(0.68, 0.85), 0.5)
        for y in np.arange(top + 4.5, hem_y - 1, vary(2.6, 3.6)):
            cloth.hole(MIDDLE, y, 0.38, 0.38, cloth.gray(cloth.rng.choice([0.45, 1.4])))
    return pattern(cloth, plain=0.5)


_KINDS: tuple[Callable[[Cloth], np.ndarray | float], ...] = (
    _t_shirt,
    _trouser,
    _pullover,
    _dress,
    _coat,
    sandal,
    _shirt,
    sneaker,
    bag,
    boot,
)
