"""Bones, flesh and metal of the drawn limb films: tubes in space, and what a beam meets on its way through them.

Every structure is a tube: an axis from one end to the other, an elliptical cross-section whose half-widths and centre
vary along the axis, a wall (the cortex) and what is inside (the marrow). A beam at the distance d from the axis of a
tube of outer radius R and inner radius r runs through 2 (sqrt(R^2 - d^2) - sqrt(r^2 - d^2)) of wall, which is why the
rims of a bone are bright and its middle is not. A carpal bone or a femoral head is a short tube with round caps, a
scapula's blade a flat one, a screw a thin one of metal.

Lengths are in centimetres in the space of the patient (x to the patient's side, y down the limb, z to the front), and
in halves of a film on the film: x from -1 (left) to +1, y from -1 (top) to +1. Arrays of shape (size_px, size_px) end
in _HW, those of one row per tube and one column per place along it in _TS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

PLACES = 256
"""Places along a tube at which its section is tabulated, from its start (0) to its end (255)."""
TRABECULAR, EMPTY = 0.70, 0.90
"""What marrow lacks of the density of cortex: among the trabeculae of a bone's ends, in the canal of its shaft."""


@dataclass(frozen=True, eq=False)
class Section:
    """How the section of a kind of tube changes along it, tabulated at PLACES places; all lengths in cm."""

    table_KS: np.ndarray
    """Rows: centre and half-width to the front axis, centre and half-width to the side axis, thickness of the wall."""
    caps_cm: tuple[float, float]
    """How far from either end the rounding begins; small: cut off straight."""

    @cached_property
    def reach_cm(self) -> float:
        """How far from its axis it gets at most."""
        return float((np.hypot(*self.table_KS[[1, 3]]) + np.hypot(*self.table_KS[[0, 2]])).max())


@lru_cache(maxsize=1024)
def section(caps_cm: tuple[float, float], *knots: tuple[float, ...]) -> Section:
    """The section through `knots` (place 0..1, then the five rows of the table), smooth and without overshoot."""
    knots_NK = np.array(knots, np.float64)
    places = np.linspace(0, 1, PLACES)
    rows = [_monotone_cubic(places, knots_NK[:, 0], knots_NK[:, column]) for column in range(1, 6)]
    return Section(np.stack(rows).astype(np.float32), caps_cm)


def rod(half_front_cm: float, half_side_cm: float | None = None, cap_cm: float | None = None) -> Section:
    """A solid rod of constant section, with round ends unless `cap_cm` says otherwise."""
    half_side_cm = half_front_cm if half_side_cm is None else half_side_cm
    row = (0.0, half_front_cm, 0.0, half_side_cm, 99.0)
    cap_cm = half_front_cm if cap_cm is None else cap_cm
    return section((cap_cm, cap_cm), (0, *row), (1, *row))


@lru_cache(maxsize=256)
def thicker(shape: Section, factor: float) -> Section:
    """The same shape with other half-widths, centres and walls."""
    return Section(shape.table_KS * np.float32(factor), shape.caps_cm)


def pebble(half_front_cm: float, half_side_cm: float, length_cm: float, wall_cm: float = 0.13) -> Section:
    """A round short bone: an ellipsoid with a thin wall."""
    row = (0.0, half_front_cm, 0.0, half_side_cm, wall_cm)
    return section((length_cm / 2, length_cm / 2), (0, *row), (1, *row))


Cut = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(cm along a tube from its start, cm across it) -> what is left of its density there: a fracture, a hole."""


@dataclass(frozen=True)
class Tube:
    name: str
    ends_cm: np.ndarray
    """(2, 3): start (of a limb's bone: the end that is nearer to the trunk) and end."""
    front: np.ndarray
    """(3,) unit vector across the tube: the axis of `half-width to the front`."""
    section: Section
    density: float = 1.0
    """1: bone. Negative: something is missing here."""
    joined: bool = False
    """One bone with what has been drawn before: where both are, the denser one counts and not the sum."""
    cut: Cut | None = None


@dataclass(frozen=True)
class Camera:
    """Where the film is."""

    turn_33: np.ndarray
    """Rotation from the patient's space to the film's: film x, film y, along the beam."""
    centre_cm: np.ndarray
    """(3,) what stands in the middle of the film."""
    half_field_cm: float
    """Half the side of the film."""

    def on_film(self, points_cm: np.ndarray) -> np.ndarray:
        """(..., 3) in space -> (..., 3) in halves of a film; the last one runs along the beam."""
        return ((points_cm - self.centre_cm) @ self.turn_33.T / self.half_field_cm).astype(np.float32)


def rotation(turn: float, roll: float) -> np.ndarray:
    """(3, 3): turned about the limb's axis (0 frontal, pi/2 from the side), then rolled in the plane of the film."""
    cos, sin = np.cos(turn), np.sin(turn)
    about_axis = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    cos, sin = np.cos(roll), np.sin(roll)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ about_axis


def draw_paths(
    tubes: Sequence[Tube],
    camera: Camera,
    grid_2HW: np.ndarray,
    canvas_HW: np.ndarray,
    wide: float = 1.0,
    wall: float = 1.0,
) -> None:
    """Adds to `canvas_HW` how many cm of wall the beam meets in each tube.

    `grid_2HW`: x and y of every pixel, in halves of a film. `wide`, `wall`: factors on half-widths and on walls.
    """
    x_HW, y_HW = grid_2HW
    size_px, field_cm = canvas_HW.shape[0], camera.half_field_cm
    tubes = _on_film(tubes, camera, wide)
    if not tubes:
        return
    tables = _tables(tubes, camera, wide, wall)
    end_T2 = tables.start_T2 + tables.along_T2 * tables.length_T[:, None]
    windows = _windows(tables.start_T2, end_T2, tables.reach_T, size_px)
    for index, tube in enumerate(tubes):
        start, along, across, length, outer_S, inner_S, offset_S, depth_S, hollow_S = tables.of(index)
        window = windows[index]
        x, y = x_HW[window], y_HW[window]
        if not x.size:
            continue
        u = along[0] * x
        u += along[1] * y
        u -= along @ start
        place = np.multiply(u, (PLACES - 1) / length).astype(np.intp)
        d = across[0] * x
        d += across[1] * y
        d -= across @ start
        d -= offset_S.take(place, mode="clip")
        d_squared = np.square(d)
        path = outer_S.take(place, mode="clip")
        path -= d_squared
        np.sqrt(np.maximum(path, 0, out=path), out=path)
        path *= depth_S.take(place, mode="clip")
        if hollow_S.any():
            marrow = inner_S.take(place, mode="clip")
            marrow -= d_squared
            np.sqrt(np.maximum(marrow, 0, out=marrow), out=marrow)
            marrow *= hollow_S.take(place, mode="clip")
            path -= marrow
        if tube.cut is not None:
            path *= tube.cut((u - tables.lead_T[index]) * field_cm, d * field_cm)
        if tube.density != 1:
            path *= np.float32(tube.density)
        if tube.joined:
            np.maximum(canvas_HW[window], path, out=canvas_HW[window])
        else:
            canvas_HW[window] += path


def _on_film(tubes: Sequence[Tube], camera: Camera, wide: float) -> Sequence[Tube]:
    """Those of which something may be seen."""
    if not tubes:
        return []
    ends = camera.on_film(np.stack([tube.ends_cm for tube in tubes]))[:, :, :2]
    reach = np.array([tube.section.reach_cm for tube in tubes]) * (wide / camera.half_field_cm) + 0.05
    seen = ((ends.min(axis=1) - reach[:, None] < 1) & (ends.max(axis=1) + reach[:, None] > -1)).all(axis=1)
    return [tube for tube, is_seen in zip(tubes, seen, strict=True) if is_seen]


@dataclass(frozen=True)
class _Tables:
    """What drawing needs of every tube, computed for all of them at once; lengths in halves of a film."""

    start_T2: np.ndarray
    along_T2: np.ndarray
    length_T: np.ndarray
    outer_TS: np.ndarray
    inner_TS: np.ndarray
    """Squares of the half-widths on the film."""
    offset_TS: np.ndarray
    depth_TS: np.ndarray
    hollow_TS: np.ndarray
    """cm of wall along the beam, and of what is missing inside, per half-width on the film."""
    reach_T: np.ndarray
    lead_T: np.ndarray
    """How far before its start a tube's thickness is seen."""

    def of(self, i: int) -> tuple:
        along = self.along_T2[i]
        across = np.array([-along[1], along[0]], np.float32)
        row = (self.outer_TS[i], self.inner_TS[i], self.offset_TS[i], self.depth_TS[i], self.hollow_TS[i])
        return self.start_T2[i], along, across, self.length_T[i], *row


def _tables(tubes: Sequence[Tube], camera: Camera, wide: float, wall_factor: float) -> _Tables:
    ends = camera.on_film(np.stack([tube.ends_cm for tube in tubes]))
    axis = ends[:, 1] - ends[:, 0]
    true_length = np.maximum(np.linalg.norm(axis, axis=1), 1e-4)
    fronts = np.stack([tube.front for tube in tubes]) @ camera.turn_33.T
    sides = np.cross(fronts, axis / true_length[:, None])
    flat_length = np.linalg.norm(axis[:, :2], axis=1)
    along = axis[:, :2] / np.maximum(flat_length, 1e-6)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    front = (fronts[:, :2] * across).sum(1)[:, None].astype(np.float32)
    side = (sides[:, :2] * across).sum(1)[:, None].astype(np.float32)
    factors = np.array([wide, wide, wide, wide, wide * wall_factor], np.float32)
    profile = np.stack([tube.section.table_KS for tube in tubes]) * factors[:, None]
    caps = np.array([tube.section.caps_cm for tube in tubes], np.float32)
    centre_front, half_front, centre_side, half_side, wall = (profile[:, row] for row in range(5))
    half_TS = np.sqrt(np.square(half_front * front) + np.square(half_side * side))
    # A tube that is seen at an angle shows its own thickness at its ends, and the beam runs longer through it.
    thickness = 2 * half_TS.max(axis=1) / camera.half_field_cm
    length = np.hypot(flat_length, thickness * np.sqrt(np.maximum(1 - np.square(flat_length / true_length), 0)))
    start_T2 = ends[:, :, :2].mean(axis=1) - along * (length / 2)[:, None]
    depth_TS = 2 * camera.half_field_cm * half_front * half_side / np.square(half_TS)  # an ellipse's by its area
    depth_TS = depth_TS * np.minimum(true_length / length, 2.0)[:, None].astype(np.float32)
    from_start = np.linspace(0, 1, PLACES, dtype=np.float32) * (true_length * camera.half_field_cm)[:, None]
    from_end = from_start[:, ::-1]
    outer_TS = half_TS * _cap(from_start, caps[:, :1]) * _cap(from_end, caps[:, 1:])
    plate = np.minimum(0.8 * wall, 0.14)  # under the cartilage
    inner_TS = np.maximum(half_TS - wall, 0)
    inner_TS = inner_TS * _cap(from_start - plate, caps[:, :1]) * _cap(from_end - plate, caps[:, 1:])
    shaft = np.clip(wall / np.maximum(wall.max(axis=1, keepdims=True), 0.2), 0, 1)
    missing = TRABECULAR + (EMPTY - TRABECULAR) * np.square(shaft)
    offset_TS = (centre_front * front + centre_side * side) / camera.half_field_cm
    outer_TS, inner_TS = outer_TS / camera.half_field_cm, inner_TS / camera.half_field_cm
    return _Tables(
        start_T2=start_T2,
        along_T2=along,
        length_T=length,
        outer_TS=np.square(outer_TS),
        inner_TS=np.square(inner_TS),
        offset_TS=offset_TS,
        depth_TS=depth_TS,
        hollow_TS=depth_TS * missing * (wall < half_TS),
        lead_T=(length - flat_length) / 2,
        reach_T=(outer_TS + np.abs(offset_TS)).max(axis=1),
    )


def _cap(from_end_cm: np.ndarray, cap_cm: np.ndarray) -> np.ndarray:
    """0 at the end, 1 where the rounding is over, a quarter of an ellipse in between."""
    return np.sqrt(np.maximum(1 - np.square(1 - np.clip(from_end_cm / cap_cm, 0, 1)), 0))


def _windows(start_T2: np.ndarray, end_T2: np.ndarray, reach_T: np.ndarray, size_px: int) -> list[tuple[slice, slice]]:
    """Rows and columns in which each tube can be seen; empty if it lies beside the film."""
    margin = reach_T[:, None] + 0.05  # the coordinates are warped a little
    low = np.floor((np.minimum(start_T2, end_T2) - margin + 1) * (size_px / 2)).clip(0, size_px).astype(int)
    high = np.ceil((np.maximum(start_T2, end_T2) + margin + 1) * (size_px / 2)).clip(0, size_px).astype(int)
    corners = zip(low.tolist(), high.tolist(), strict=True)
    return [(slice(top, bottom), slice(left, right)) for (left, top), (right, bottom) in corners]


def _monotone_cubic(places: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation that keeps what rises rising (Fritsch and Carlson 1980)."""
    widths, slopes = np.diff(x), np.diff(y) / np.diff(x)
    before, after = slopes[:-1], slopes[1:]
    same_way = before * after > 0
    inner = np.where(same_way, 2 * before * after / np.where(same_way, before + after, 1), 0)
    tangents = np.concatenate([slopes[:1], inner, slopes[-1:]])
    i = np.clip(np.searchsorted(x, places, side="right") - 1, 0, len(widths) - 1)
    h, s = widths[i], (places - x[i]) / widths[i]
    rise = y[i] * (1 + 2 * s) * (1 - s) ** 2 + y[i + 1] * s**2 * (3 - 2 * s)
    return rise + h * tangents[i] * s * (1 - s) ** 2 - h * tangents[i + 1] * s**2 * (1 - s)
