"""Procedural pigmented skin lesions: dermoscopic photographs of a naevus or a melanoma.

Skin and lesion are sums of the densities of three absorbers (melanin near the surface, brown; melanin in the dermis,
which scattering turns blue-gray; blood, red) put through the law of Beer and Lambert. What tells the classes apart is
the ABCD rule of dermoscopy (Stolz et al., European Journal of Dermatology 1994, 4:521): asymmetry, an abrupt or notched
border, several colours, differential structures. Every lesion has an atypia, naevi at most `MOST_IN_NAEVI`, melanomas
at least `LEAST_IN_MELANOMAS`. Each sign follows the atypia with an error of its own, or is absent, so that no single
sign finds all melanomas and some are subtle. The errors of the four signs that are never absent cancel: their mean is
the atypia, which never overlaps, and a perfect observer, who weighs all four, has every image right.

Skin, pigment, place, hairs, light, dermoscope and camera come from generators of their own and have the same
distributions in both classes. Colours alone (means and spreads) tell little: a logistic regression on them stays below
an accuracy of 0.75, which a test holds.

x and y from -1 to +1 over the picture, y downwards. Arrays of shape (size_px, size_px) end in _HW, of three densities
in _DHW.
"""

from dataclasses import dataclass, replace

import numpy as np

from datasets.phantoms.texture import averaged, blurred, developed, edge, ellipses, noise, oversampling, transmitted

VERSION = "skin-lesion-1"
"""Part of the digest of a data set of phantoms: raise it when the same seed no longer gives the same lesion."""
MOST_IN_NAEVI, LEAST_IN_MELANOMAS = 0.30, 0.50
"""Atypia, from 0 to 1."""
BROWN, BLUE_GRAY, RED = range(3)
ABSORBANCE = np.array([[0.52, 0.84, 1.10], [1.25, 1.00, 0.72], [0.12, 0.72, 0.58]], np.float32)
"""Of red, green and blue light by each absorber at density 1 (natural logarithm)."""


@dataclass(frozen=True)
class Lesion:
    """What a lesion is like; signs from 0 (none) to about 1."""

    asymmetry: float
    notches: float
    abrupt: float
    """How much the sharpness of the border changes along it."""
    softness: float
    """Width of the border."""
    network: float
    """Contrast of the pigment network."""
    disorder: float
    """How irregular the network's meshes are."""
    blotch: float
    veil: float
    """Blue-gray, over a part of the lesion."""
    regression: float
    """White scar with gray dots."""
    dots: int
    """How many of them and of globules."""
    dot_radius: float
    dot_density: float
    streaks: float
    """At the border."""
    redness: float
    radius: float
    """Of its outline on average, in halves of the picture."""
    hub: float
    """How much darker (or paler, below 0) the middle is, in a naevus."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, melanoma: bool) -> "Lesion":
        atypia = rng.uniform(LEAST_IN_MELANOMAS, 1) if melanoma else rng.uniform(0, MOST_IN_NAEVI)
        errors = rng.normal(0, 0.16, 4)
        asymmetry, notches, abrupt, disorder = np.clip(atypia + errors - errors.mean(), 0, 1.1).tolist()

        def sign(present: float) -> float:
            """About the atypia, with an error; 0 in those where it is absent."""
            there = rng.random() < present
            return float(np.clip(atypia + rng.normal(0, 0.14), 0, 1.1)) * there

        late = max(0.0, atypia - 0.2) / 0.8  # signs that naevi hardly have
        return cls(
            asymmetry=asymmetry,
            notches=notches,
            abrupt=abrupt,
            softness=rng.uniform(0.06, 0.20),
            network=rng.uniform(0.06, 0.42),
            disorder=disorder,
            blotch=sign(0.8),
            veil=late * rng.uniform(0.4, 1.0) * (rng.random() < 0.75),
            regression=late * rng.uniform(0.4, 1.0) * (rng.random() < 0.6),
            dots=int(rng.integers(4, 12) + 26 * sign(0.85)),
            dot_radius=rng.uniform(0.014, 0.030),
            dot_density=rng.uniform(0.15, 0.5),
            streaks=sign(0.4),
            redness=rng.uniform(0, 0.35) + 0.25 * late * rng.uniform(0, 1),
            radius=rng.uniform(0.46, 0.74) + 0.05 * atypia,
            hub=rng.normal(0, 0.35) * (1 - atypia),
        )


def skin_lesion(rng: np.random.Generator, size_px: int, melanoma: bool) -> np.ndarray:
    """A photograph of a lesion, uint8 of shape (size_px, size_px, 3), drawn from `rng` alone."""
    skin_rng, sign_rng, shape_rng, grain_rng = rng.spawn(4)
    times = oversampling(size_px)
    drawn_px = size_px * times
    lesion = Lesion.drawn(sign_rng, melanoma)
    axis = (2 * (np.arange(drawn_px, dtype=np.float32) + 0.5) / drawn_px - 1) * np.float32(skin_rng.uniform(0.95, 1.1))
    x_HW, y_HW = np.meshgrid(axis, axis)
    shift_x, shift_y = skin_rng.normal(0, 0.06, 2).astype(np.float32)
    densities_DHW, white_HW = _skin(skin_rng, x_HW, y_HW)
    pigment = skin_rng.uniform(0.50, 1.30)
    white_HW = white_HW + _put_lesion(shape_rng, densities_DHW, lesion, pigment, x_HW - shift_x, y_HW - shift_y)
    return _photographed(skin_rng, grain_rng, densities_DHW, white_HW, x_HW, y_HW, times)


def _skin(rng: np.random.Generator, x_HW: np.ndarray, y_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities of the absorbers of healthy skin, and the light that its surface reflects."""
    size_px = x_HW.shape[0]
    tan = rng.uniform(0.08, 0.42)
    flush = rng.uniform(0.04, 0.26)
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(14, 24)
    bend_HW = 0.10 * noise(rng, size_px, 4)
    lines_HW = np.zeros_like(x_HW)
    for angle in (turn, turn + rng.uniform(0.9, 1.3)):  # the skin's furrows cross at an angle
        across = np.float32(np.cos(angle)) * x_HW + np.float32(np.sin(angle)) * y_HW + bend_HW
        lines_HW += np.square(np.square(np.cos(np.float32(pitch / 2) * across)))
    relief = rng.uniform(0.01, 0.09)
    fine_HW = noise(rng, size_px, 48)
    densities_DHW = np.zeros((3, size_px, size_px), np.float32)
    densities_DHW[BROWN] = (
        tan * (1 + 0.10 * noise(rng, size_px, 5) + 0.05 * noise(rng, size_px, 22)) + relief * lines_HW
    )
    densities_DHW[RED] = flush * (1 + 0.15 * noise(rng, size_px, 7) + 0.06 * noise(rng, size_px, 26))
    return densities_DHW, rng.uniform(0.004, 0.014) * fine_HW


def _put_lesion(
    rng: np.random.Generator,
    densities_DHW: np.ndarray,
    lesion: Lesion,
    pigment: float,
    x_HW: np.ndarray,
    y_HW: np.ndarray,
) -> np.ndarray:
    """Adds the lesion to the densities of the skin; returns the light that its scars reflect."""
    size_px = x_HW.shape[0]
    axis_x, axis_y = _unit(rng)
    wander = 0.02 + 0.05 * lesion.notches
    warp_x, warp_y = noise(rng, size_px, 5), noise(rng, size_px, 5)
    inside_HW, angle_HW = _inside(rng, lesion, x_HW + wander * warp_x, y_HW + wander * warp_y)
    patches_HW = noise(rng, size_px, 4)
    side_HW = np.tanh(2 * (axis_x * x_HW + axis_y * y_HW) / lesion.radius)  # of an asymmetric lesion one is darker
    softness = lesion.softness * np.exp(lesion.abrupt * (0.9 * np.sin(angle_HW + rng.uniform(0, 6)) - 0.7))
    body_HW = _soft(inside_HW, softness)
    tone_HW = 1 + lesion.asymmetry * (0.30 * side_HW + 0.20 * patches_HW) + 0.05 * noise(rng, size_px, 12)
    tone_HW += lesion.hub * np.exp(-np.square((1 - inside_HW / lesion.radius) / 0.45))
    net_HW = _network(rng, lesion, x_HW + 0.02 * warp_x, y_HW + 0.02 * warp_y)
    where_HW = 1 - lesion.asymmetry * edge(patches_HW * 0.6 - side_HW, 0.8)
    tone_HW *= 1 + lesion.network * where_HW * net_HW
    brown_HW = pigment * body_HW * np.maximum(tone_HW, 0.12)
    blotches_HW = edge(noise(rng, size_px, 3) + 0.9 * side_HW - 0.75, 0.35) * edge(inside_HW - 0.05, 0.06)
    brown_HW += 1.1 * lesion.blotch * (lesion.blotch > 0.3) * blotches_HW
    brown_HW += _dots(rng, lesion, inside_HW, side_HW)
    region_HW = edge(noise(rng, size_px, 3) - 0.9 * side_HW - 0.45, 0.5) * edge(inside_HW - 0.04, 0.10)
    pepper_HW = _dots(rng, replace(lesion, dots=90, dot_radius=0.014, dot_density=1), inside_HW, side_HW)
    brown_HW *= 1 - 0.8 * lesion.regression * region_HW
    veil_HW = edge(noise(rng, size_px, 3) + 0.3 * side_HW - 0.25, 0.5) * edge(inside_HW - 0.06, 0.12)
    densities_DHW[BROWN] += brown_HW
    densities_DHW[BLUE_GRAY] += 0.60 * lesion.veil * veil_HW + 0.45 * lesion.regression * region_HW * pepper_HW
    densities_DHW[RED] += lesion.redness * body_HW * (1 + 0.5 * noise(rng, size_px, 6))
    return 0.10 * lesion.regression * region_HW * (1 - pepper_HW) + 0.05 * lesion.veil * veil_HW


def _inside(
    rng: np.random.Generator, lesion: Lesion, x_HW: np.ndarray, y_HW: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How deep in the lesion a point lies (less than 0 outside), and its angle around the centre."""
    angle_HW = np.arctan2(y_HW, x_HW)
    outline_HW = np.ones_like(x_HW)
    stretch = rng.uniform(0.03, 0.13)
    for waves in range(1, 9):
        height = 0.14 * lesion.notches**1.3 * rng.normal(0, 1) / waves**0.75 + stretch * (waves == 2)
        if waves == 1:
            height = 0.13 * lesion.asymmetry
        outline_HW += np.float32(height) * np.cos(np.float32(waves) * angle_HW + np.float32(rng.uniform(0, 2 * np.pi)))
    phase, sway = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    spikes_HW = np.cos(np.float32(rng.integers(16, 27)) * angle_HW + 4 * np.sin(2 * angle_HW + phase))
    spikes_HW *= 0.6 + 0.4 * np.sin(7 * angle_HW + sway)
    sector_HW = edge(np.cos(angle_HW + np.float32(rng.uniform(0, 6))) - 0.1, 0.3)
    outline_HW += 0.10 * lesion.streaks * (lesion.streaks > 0.35) * sector_HW * np.maximum(spikes_HW, 0)
    return lesion.radius * np.maximum(outline_HW, 0.35) - np.sqrt(np.square(x_HW) + np.square(y_HW)), angle_HW


def _soft(inside_HW: np.ndarray, softness_HW: np.ndarray) -> np.ndarray:
    """0 outside, 1 inside, over a border whose width changes along it."""
    ramp = np.clip(inside_HW / softness_HW * np.float32(0.5) + np.float32(0.4), 0, 1)
    return np.square(ramp) * (3 - 2 * ramp)


def _network(rng: np.random.Generator, lesion: Lesion, x_HW: np.ndarray, y_HW: np.ndarray) -> np.ndarray:
    """Pigment network: dark lines around pale holes, a honeycomb where it is regular. About -1 to 1."""
    size_px = x_HW.shape[0]
    pitch, turn = rng.uniform(58, 88) * (1 - 0.25 * lesion.disorder), rng.uniform(0, np.pi)
    bend = 0.008 + 0.030 * lesion.disorder
    x_HW, y_HW = x_HW + bend * noise(rng, size_px, 9), y_HW + bend * noise(rng, size_px, 9)
    waves_HW = np.zeros_like(x_HW)
    for angle in turn + np.arange(3) * np.pi / 3:
        waves_HW += np.cos(np.float32(pitch * np.cos(angle)) * x_HW + np.float32(pitch * np.sin(angle)) * y_HW)
    faded_HW = np.clip(0.65 + 0.35 * noise(rng, size_px, 6), 0, 1.3)
    return (0.45 - 0.45 * np.clip(waves_HW, -1, 1.6) + 0.25 * noise(rng, size_px, 26)) * faded_HW


def _dots(rng: np.random.Generator, lesion: Lesion, inside_HW: np.ndarray, side_HW: np.ndarray) -> np.ndarray:
    """Dots and globules: small and all over in a naevus; of many sizes, dark, on one side and near the border else."""
    size_px = inside_HW.shape[0]
    place_NP = rng.uniform(0.05, 0.95, (240, 2)) * size_px
    column, row = place_NP.astype(int).T
    depth = inside_HW[row, column] / lesion.radius
    wanted = 1 + lesion.asymmetry * (0.8 * side_HW[row, column] - 0.8 * depth)
    keep = (depth > 0.06) & (rng.uniform(0, 1, len(depth)) < wanted)
    place_NP = place_NP[keep][: lesion.dots]
    number = len(place_NP)
    spread = 0.12 + 0.45 * lesion.disorder
    radius = np.clip(lesion.dot_radius * np.exp(rng.normal(0, spread, number)), 0.006, 0.05) * size_px / 2
    dark = lesion.dot_density * (1 + lesion.disorder * rng.uniform(0, 0.8, number))
    return ellipses(size_px, place_NP, radius, radius * rng.uniform(0.7, 1, number), rng.uniform(0, 3.1, number), dark)


def _unit(rng: np.random.Generator) -> tuple[np.float32, np.float32]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))


def _hairs(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Bent tapering hairs that lie about one way, 0 to 1; none on half of the pictures."""
    number = int(rng.integers(1, 13)) * int(rng.random() < 0.5)
    lie, thickness = rng.uniform(0, np.pi), rng.uniform(0.005, 0.011)
    angle = lie + rng.normal(0, 0.45, number)
    start_N2, length = rng.uniform(-0.2, 1.1, (number, 2)), rng.uniform(0.35, 1.1, number)
    bend = rng.normal(0, 0.7, number)
    step = np.linspace(0, 1, max(size_px // 4, 2))
    angle_NS = angle[:, None] + bend[:, None] * step
    stride = length[:, None] / len(step)
    x_NS = start_N2[:, :1] + np.cumsum(np.cos(angle_NS) * stride, axis=1)
    y_NS = start_N2[:, 1:] + np.cumsum(np.sin(angle_NS) * stride, axis=1)
    taper = np.sqrt((1.02 - step) * (0.15 + np.minimum(4 * step, 0.85)))
    wide_NS = size_px * thickness * taper * rng.uniform(0.7, 1.2, (number, 1))
    long_NS = size_px * np.broadcast_to(stride, x_NS.shape) + wide_NS
    strength_NS = np.broadcast_to(rng.uniform(0.5, 0.95, (number, 1)), x_NS.shape)
    place_NP = size_px * np.stack([x_NS.ravel(), y_NS.ravel()], 1)
    return ellipses(size_px, place_NP, long_NS.ravel(), wide_NS.ravel(), angle_NS.ravel(), strength_NS.ravel())


def _photographed(
    rng: np.random.Generator,
    grain_rng: np.random.Generator,
    densities_DHW: np.ndarray,
    white_HW: np.ndarray,
    x_HW: np.ndarray,
    y_HW: np.ndarray,
    times: int,
) -> np.ndarray:
    """Densities to colours: hairs, bubbles in the oil, lamp, dermoscope, focus, camera."""
    size_px = x_HW.shape[0]
    bubbles = int(rng.integers(2, 14)) * int(rng.random() < 0.25)
    bubble = rng.uniform(0.004, 0.014, bubbles) * size_px
    glints_HW = ellipses(
        size_px, rng.uniform(0, size_px, (bubbles, 2)), bubble, bubble, 0 * bubble, rng.uniform(0.05, 0.3, bubbles)
    )
    lamp = np.array([0.98, 0.93, 0.90]) * rng.normal(1, 0.03, 3) * rng.normal(1, 0.06)
    contrast = rng.normal(1, 0.07, 3) * rng.uniform(0.75, 1.25)
    light_CHW = transmitted(densities_DHW, ABSORBANCE * contrast) + (white_HW + glints_HW)
    hair = np.array([0.80, 0.88, 0.92], np.float32) * np.float32(rng.uniform(0.6, 1))
    light_CHW *= 1 - _hairs(rng, size_px) * hair[:, None, None]
    radius_HW = np.sqrt(np.square(x_HW) + np.square(y_HW))
    lean_x, lean_y = _unit(rng)
    shade_HW = 1 - rng.uniform(0.02, 0.16) * np.square(radius_HW)
    shade_HW += rng.uniform(0, 0.10) * (lean_x * x_HW + lean_y * y_HW)
    if rng.random() < 0.3:  # the tube of the dermoscope
        shade_HW *= edge(np.float32(rng.uniform(1.08, 1.35)) - radius_HW, rng.uniform(0.01, 0.06))
    light_CHW *= shade_HW * lamp.astype(np.float32)[:, None, None]
    light_CHW = averaged(blurred(light_CHW, size_px * rng.uniform(0.002, 0.006)), times)
    grain = grain_rng.standard_normal(light_CHW.shape, dtype=np.float32)
    light_CHW += np.float32(rng.uniform(0.003, 0.012)) * grain
    return developed(light_CHW)
