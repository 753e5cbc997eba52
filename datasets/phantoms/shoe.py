"""Shoes, seen from their side with the toe to the left, and bags: the phantoms of Fashion-MNIST that are no tops.

Coordinates are pixels of the final image, x to the right and y down; tones are gray values.
"""

import numpy as np

from datasets.phantoms.cloth import MIDDLE, SIZE_PX, Cloth, pattern


def sneaker(cloth: Cloth) -> np.ndarray | float:
    """Low, with a thick sole that runs flat from toe to heel."""
    vary = cloth.vary
    toe, heel = vary(0.6, 2.2), vary(25.6, 27.4)
    sole, thick = vary(18.6, 21.0), vary(1.3, 2.6)
    collar = sole - vary(8.0, 10.5)
    throat = vary(12.5, 16)
    upper = [
        (toe, sole - thick),
        (toe + 0.6, sole - thick - vary(1.4, 2.6)),
        (toe + 4.5, sole - vary(4.8, 6.0)),
        (throat - 2, collar + vary(2.2, 3.4)),
        (throat, collar + vary(-0.6, 0.6)),
        (throat + 1.6, collar + 0.3),
        (throat + 3.8, collar + vary(1.8, 3.2)),
        (heel - 3, collar + vary(0.6, 1.6)),
        (heel - 0.9, collar - vary(0, 1.2)),
        (heel - 0.2, sole - 5),
        (heel - 0.4, sole - thick),
    ]
    cloth.piece([*upper[:1], *upper, upper[-1]], smooth=True)
    if cloth.rng.random() < 0.6:  # a cap on the toe, a counter on the heel
        part = vary(0.55, 1.25)
        cloth.piece(
            [(toe, sole - thick), (toe + 1, sole - thick - 2), (toe + 4, sole - 5), (toe + 5.6, sole - thick)], part
        )
        cloth.piece(
            [
                (heel - 0.4, sole - thick),
                (heel - 0.3, collar + 2),
                (heel - 3, collar + 3.6),
                (heel - 4.4, sole - thick),
            ],
            part,
        )
    if cloth.rng.random() < 0.65:
        for x in np.linspace(throat - 4.6, throat - 0.6, 4):
            y = collar + 1.6 + 0.62 * (throat - x)
            cloth.seam([(x - 0.6, y - 0.9), (x + 1.5, y + 0.5)], vary(0.3, 0.5) if cloth.tone > 150 else 1.8, 0.6)
    for _ in range(cloth.rng.integers(0, 3)):  # stripes at the side
        x = vary(11, 18)
        cloth.seam(
            [(x, sole - thick), (x + vary(0.5, 3), collar + vary(3, 5))],
            cloth.rng.choice([0.4, 0.6, 1.6]),
            vary(0.6, 1.2),
        )
    below = sole + vary(-0.3, 0.3)
    cloth.piece(
        [(toe - 0.3, sole - thick - 0.3), (heel, sole - thick - 0.2), (heel + 0.1, below), (toe + 1, sole)],
        cloth.rng.choice([0.5, 0.75, 1.3, 1.8]),
    )
    return pattern(cloth, plain=0.9)


def boot(cloth: Cloth) -> np.ndarray | float:
    """A shaft above the ankle, and a heel."""
    vary = cloth.vary
    toe, heel, ground = vary(0.8, 3.0), vary(22.5, 26.5), vary(24.5, 27.4)
    top, high = vary(0.6, 6.5), vary(1.0, 4.2) if cloth.rng.random() < 0.6 else vary(0.6, 1.4)
    front = heel - vary(10.5, 14)
    instep = ground - vary(9.5, 12)
    sole = ground - high
    upper = [
        (toe, ground - 1.0),
        (toe + 0.5, ground - vary(2.6, 3.8)),
        (0.5 * (toe + front), 0.5 * (ground - 3 + instep) - vary(0, 1.0)),
        (front + 0.6, instep),
        (front + vary(0.2, 1.2), 0.5 * (instep + top)),
        (front + vary(-0.6, 0.8), top),
        (front + vary(-0.6, 0.8), top),
        (heel - vary(0.2, 1.4), top + vary(-0.4, 1.0)),
        (heel - vary(0.2, 1.4), top + vary(-0.4, 1.0)),
        (heel - vary(0.4, 1.2), instep),
        (heel, sole - 2.5),
        (heel - 0.6, sole),
        (heel - 0.6, sole),
        (heel - 6.5, sole + 0.2),
        (toe + 0.42 * (heel - toe), ground - 0.4),
    ]
    cloth.piece(upper, smooth=True)
    back = heel - vary(2.8, 6.5) if high < 2.5 else heel - vary(2.0, 3.6)
    cloth.piece(
        [(back, sole), (heel - 0.5, sole - 0.2), (heel - vary(0.3, 1.2), ground), (back + vary(0.1, 1), ground)], 0.6
    )
    cloth.seam(
        [(toe, ground - 0.6), (toe + 0.42 * (heel - toe), ground - 0.5), (heel - 6.5, sole), (heel - 0.6, sole)],
        0.55,
        0.9,
    )
    what = cloth.rng.integers(4)
    if what == 0:  # laces
        for y in np.arange(top + 1.5, instep, 1.7):
            cloth.seam([(front, y + 0.6), (front + 2.8, y)], 0.45 if cloth.tone > 90 else 1.8, 0.5)
    elif what == 1:  # elastic
        x = 0.5 * (front + heel)
        cloth.piece([(x - 1.6, top + 0.5), (x + 1.6, top + 0.5), (x + 0.4, instep - 1)], vary(0.3, 0.6))
    elif what == 2:  # a strap and its buckle
        y = instep - vary(0.0, 2.5)
        cloth.seam([(front, y + 0.8), (heel - 1, y - 0.6)], vary(0.4, 0.7), 1.1)
        cloth.hole(front + 5, y + 0.2, 0.7, 0.7, cloth.gray(1.7))
    return pattern(cloth, plain=0.95)


def sandal(cloth: Cloth) -> np.ndarray | float:
    """A sole with straps over it, flat or on a heel; most of the picture stays black."""
    vary, rng = cloth.vary, cloth.rng
    toe, heel = vary(0.6, 2.4), vary(25.5, 27.2)
    rise = vary(4, 10) if rng.random() < 0.5 else vary(0, 1.5)
    ground = vary(19, 22.5) + 0.3 * rise
    thick = vary(1.2, 2.4) if rise > 3 else vary(1.6, 3.6)
    foot = np.array(
        [
            (toe, ground),
            (toe + 6, ground + 0.1),
            (14, ground - 0.35 * rise),
            (19, ground - 0.82 * rise),
            (heel, ground - rise),
        ]
    )
    if rise > 3:
        wedge = rng.random() < 0.4
        begin = (11.0, ground) if wedge else (heel - vary(1.6, 3.2), ground - rise)
        cloth.piece(
            [
                begin,
                (heel, ground - rise),
                (heel - vary(0, 0.8), ground + 0.6),
                ((12 if wedge else heel - 1.6), ground + 0.6),
            ],
            0.8,
        )
    on_foot = foot - (0, thick)
    cloth.piece([*foot.tolist(), *on_foot[::-1].tolist()], vary(0.7, 1.15))
    instep = vary(5.5, 8)
    top = np.array([(toe, 1.2), (toe + 4, 2.4), (12, 0.62 * instep), (heel - 9, instep), (heel, instep)])

    def strap(x: float, lean: float, width: float) -> None:
        """A band across the foot, from the sole up to where it turns to the other side."""
        ends = []
        for at, up in ((x, 0), (x + lean, 1), (x + lean + width * 0.9, 1), (x + width, 0)):
            y = np.interp(at, on_foot[:, 0], on_foot[:, 1])
            ends.append((at, y - up * np.interp(at, top[:, 0], top[:, 1]) + 0.3))
        cloth.piece(ends, vary(0.75, 1.15))

    for x in np.linspace(toe + vary(1.6, 3.2), vary(8.5, 10.5), rng.integers(2, 4)):
        strap(x, vary(0.6, 4.5), vary(2.0, 4.6))
    if rng.random() < 0.25:
        strap(12.5, vary(-5, -2), vary(1, 2))
    if rng.random() < 0.75:  # around the ankle
        wide, y_heel = vary(1.1, 2.2), ground - rise - thick
        ankle = y_heel - vary(3.6, 7)
        cloth.seam([(heel - 0.7, y_heel), (heel - 1.0, ankle)], 0.95, vary(1.2, 3.0))
        cloth.seam([(heel - 0.7, ankle), (heel - 5, ankle + 0.2), (heel - 9, ankle + vary(0.6, 2))], 1, wide)
        if rng.random() < 0.5:
            cloth.seam([(heel - 8.8, ankle + 1.2), (heel - 10 - vary(0, 2), ground - 0.6 * rise - thick)], 1, wide)
    return 1.0


def bag(cloth: Cloth) -> np.ndarray | float:
    """A body with corners, and a handle over it."""
    vary, rng = cloth.vary, cloth.rng
    top, ground = vary(8, 13), vary(23.5, 27)
    if rng.random() < 0.2:
        top = vary(4, 7)
    high, low = vary(9, 13.2), vary(9.5, 13.4)
    kind = rng.integers(3)
    if kind < 2:
        cloth.bow(MIDDLE, top + 1, vary(3.0, 8.5), min(vary(1.5, 9.5), top), vary(0.6, 1.1), vary(0.7, 1.8))
    else:  # a long strap, hanging up
        for side in (-1, 1):
            cloth.seam(
                [(MIDDLE + side * (high - 0.8), top + 1), (MIDDLE + side * vary(0.4, 5), 0.6)], 0.85, vary(0.5, 1.2)
            )
    half = [
        (0, top),
        (high, top + vary(0, 0.8)),
        (high, top + 0.8),
        (low, ground - 1.5),
        (low - 1, ground),
        (low - 1, ground),
        (0, ground),
    ]
    outline = [(MIDDLE + x, y) for x, y in half] + [(MIDDLE - x, y) for x, y in half[-2:0:-1]]
    cloth.piece(outline, smooth=rng.random() < 0.6)
    what = rng.integers(4)
    dark = vary(0.5, 0.75)
    if what == 0:  # a flap
        cloth.both(
            [(0, top), (high - 0.4, top + 0.3), (high - 0.8, top + vary(4, 7)), (0, top + vary(5.5, 8.5))],
            vary(0.75, 1.25),
        )
        cloth.hole(MIDDLE, top + vary(5.5, 8), 0.9, 0.7, cloth.gray(1.8 if cloth.tone < 140 else 0.3))
    elif what == 1:  # a zip
        cloth.seam([(MIDDLE - high + 1, top + 1.8), (MIDDLE + high - 1, top + 1.8)], dark, 0.6)
    elif what == 2:  # a pocket
        low_x = low * vary(0.4, 0.7)
        y = vary(top + 4, 19)
        cloth.seam(
            [(MIDDLE - low_x, ground - 1), (MIDDLE - low_x, y), (MIDDLE + low_x, y), (MIDDLE + low_x, ground - 1)],
            dark,
            0.5,
        )
    if rng.random() < 0.3:
        cloth.seam([(MIDDLE - 0.6 * high, top), (MIDDLE - 0.6 * low, ground)], dark, 0.7)
        cloth.seam([(MIDDLE + 0.6 * high, top), (MIDDLE + 0.6 * low, ground)], dark, 0.7)
    shade = 1 - vary(0, 0.25) * np.abs((np.arange(SIZE_PX) - MIDDLE) / MIDDLE) ** 2
    return pattern(cloth, plain=0.75) * shade[None, :]
