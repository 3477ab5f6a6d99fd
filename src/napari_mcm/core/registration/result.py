"""The class `Registration`: where a place of one section lies in the next, and how surely."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import RegistrationError
from napari_mcm.core.registration.affine import apply_affine
from napari_mcm.core.registration.flow import Flow
from napari_mcm.core.registration.rough import Affine
from napari_mcm.core.registration.section import sample
from napari_mcm.core.runtime.files import atomic_path

_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)

FORMAT, VERSION = "napari-mcm registration", 2

_MOST_REPEATS = 60

_SETTLED_UM, _FOLDED_UM = 1e-3, 1.0
"""Change at which the inverse has settled, and beyond which there is none."""


@dataclass(frozen=True)
class Residual:
    """The error of a registration, measured on squares of tissue that the fit never saw.

    Attributes
    ----------
    median_um, p90_um : float
        Median and 90th percentile, in microns, of the distance between where a square
        is mapped and where it matches best; NaN where no square matches.
    blocks : int
        Squares that were tried.
    matched : float
        Fraction of them that match reliably at one place; the others show too little,
        or too different, tissue to say where they belong.
    near : float
        Fraction of all squares whose best match, reliable or not, lies within 60 µm of
        the mapped place; about .11 where sections do not correspond.
    """

    median_um: float
    p90_um: float
    blocks: int
    matched: float
    near: float

    def describe(self) -> str:
        """Describe the error in one line.

        Returns
        -------
        str
            ``median 8 µm, 90 % within 21 µm (88 % of 96 squares match)``.
        """
        if not self.blocks:
            return "not measured"
        counted = f"{self.matched:.0%} of {self.blocks} squares match"
        if np.isnan(self.median_um):
            return counted
        return f"median {self.median_um:.0f} µm, 90 % within {self.p90_um:.0f} µm ({counted})"


@dataclass(frozen=True)
class EdgeError:
    """How far the outlines of the tissue lie apart after registration.

    Outlines are not what the fit follows: it compares the stain inside. Where a piece is
    torn off in one section only, its outline lies far from any other.

    Attributes
    ----------
    median_um, p90_um : float
        Median and 90th percentile, in microns, of the distance from each point of either
        outline to the other one; NaN where there is no outline.
    """

    median_um: float = float("nan")
    p90_um: float = float("nan")

    def describe(self) -> str:
        """Describe the error in one line.

        Returns
        -------
        str
            ``median 12 µm, 90 % within 40 µm``.
        """
        if np.isnan(self.median_um):
            return "not measured"
        return f"median {self.median_um:.0f} µm, 90 % within {self.p90_um:.0f} µm"


@dataclass(frozen=True, eq=False)
class Registration:
    """A map from one section to the next.

    Attributes
    ----------
    affine : ndarray of float64, shape (2, 3)
        Microns in the first section to microns in the second.
    flow : ndarray of float32, shape (height, width, 2)
        Displacements (x, y) in microns over the whole first section, added before the
        affine transform.
    flow_mpp : tuple of float
        Microns per pixel of `flow` along x and y.
    correlation : float
        Correlation of both sections' textures after registration, at the resolution of
        `flow`; -1 to 1.
    overlap : float
        Fraction of the first section's tissue that lies on tissue of the second.
    residual : Residual
        The error in microns.
    first, second : dict
        Identity of the sections: name, fingerprint, size in level-0 pixels and microns
        per pixel. Files of earlier versions name the first two only.
    config : dict
        The options it was made with.
    edges : EdgeError
        The error on the outlines of the tissue.
    """

    affine: Affine
    flow: Flow
    flow_mpp: tuple[float, float]
    correlation: float
    overlap: float
    residual: Residual
    first: dict[str, Any]
    second: dict[str, Any]
    config: dict[str, Any]
    edges: EdgeError = EdgeError()

    @property
    def error_um(self) -> float:
        """Median error in microns; see `residual`.

        Returns
        -------
        float
            NaN where it could not be measured.
        """
        return self.residual.median_um

    @property
    def mirrored(self) -> bool:
        """Whether one of the sections lies upside down on the glass.

        Returns
        -------
        bool
        """
        return bool(np.linalg.det(self.affine[:, :2]) < 0)

    @property
    def angle_deg(self) -> float:
        """By how much the second section is turned, in degrees.

        Returns
        -------
        float
            -180 to 180; clockwise on the screen, as y points down.
        """
        x, y = self.affine[:, 0] * (-1 if self.mirrored else 1)
        return float(np.degrees(np.arctan2(y, x)))

    def map_um(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map points of the first section to the second.

        Parameters
        ----------
        points : ndarray, shape (N, 2)
            x and y in microns from the first section's upper left corner.

        Returns
        -------
        ndarray of float64, shape (N, 2)
            x and y in microns from the second section's upper left corner; they may lie
            outside of it.
        """
        points = np.asarray(points, np.float64)
        return map_points(self.affine, self.flow, self.flow_mpp, points)

    def unmap_um(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map points of the second section to the first: the inverse of :meth:`map_um`.

        Parameters
        ----------
        points : ndarray, shape (N, 2)
            x and y in microns from the second section's upper left corner.

        Returns
        -------
        ndarray of float64, shape (N, 2)
            x and y in microns from the first section's upper left corner; NaN where the
            flow folds, so that no single place is mapped there.
        """
        points = np.asarray(points, np.float64)
        return unmap_points(self.affine, self.flow, self.flow_mpp, points)

    def describe(self) -> dict[str, Any]:
        """Return everything but the arrays, ready for JSON.

        Returns
        -------
        dict
            Numbers that are not finite are None.
        """
        return {
            "first": dict(self.first),
            "second": dict(self.second),
            "angle_deg": self.angle_deg,
            "mirrored": self.mirrored,
            "correlation": self.correlation,
            "overlap": self.overlap,
            "residual": _without_nan(asdict(self.residual)),
            "edges": _without_nan(asdict(self.edges)),
            "flow_mpp": list(self.flow_mpp),
            "config": dict(self.config),
        }


def map_points(
    affine: Affine,
    flow: Flow,
    flow_mpp: tuple[float, float],
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Map points by a flow, then an affine transform.

    Parameters
    ----------
    affine : ndarray of float64, shape (2, 3)
        Microns to microns.
    flow : ndarray of float32, shape (height, width, 2)
        Displacements in microns.
    flow_mpp : tuple of float
        Microns per pixel of `flow`.
    points : ndarray of float64, shape (..., 2)
        x and y in microns.

    Returns
    -------
    ndarray of float64, shape (..., 2)
        x and y in microns.
    """
    height, width = flow.shape[:2]
    step = np.asarray(flow_mpp)
    # Beyond the outermost centres, the flow of the border holds.
    inside = np.clip(points, step / 2, (np.asarray((width, height)) - 0.5) * step)
    moved = [sample(flow[..., axis], flow_mpp, inside) for axis in (0, 1)]
    return apply_affine(affine, points + np.stack(moved, axis=-1))


def unmap_points(
    affine: Affine,
    flow: Flow,
    flow_mpp: tuple[float, float],
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Invert :func:`map_points`.

    With A the affine transform and u the flow, x = A⁻¹y - u(x) is solved by repetition,
    which settles where the flow changes by less than its argument.

    Parameters
    ----------
    affine : ndarray of float64, shape (2, 3)
        As :func:`map_points` takes it.
    flow : ndarray of float32, shape (height, width, 2)
        As :func:`map_points` takes it.
    flow_mpp : tuple of float
        As :func:`map_points` takes it.
    points : ndarray of float64, shape (..., 2)
        x and y in microns.

    Returns
    -------
    ndarray of float64, shape (..., 2)
        x and y in microns; NaN where it does not settle.
    """
    back = np.linalg.inv(affine[:, :2])
    straight = apply_affine(np.column_stack([back, -back @ affine[:, 2]]), points)
    found, change, identity = straight, np.zeros_like(straight), np.eye(2, 3)
    for _ in range(_MOST_REPEATS):
        moved = map_points(identity, flow, flow_mpp, found) - found
        change = straight - moved - found
        found = found + change
        if not np.any(np.abs(change) > _SETTLED_UM):
            break
    settled = np.all(np.abs(change) <= _FOLDED_UM, axis=-1, keepdims=True)
    return np.where(settled, found, np.nan)


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and np.isnan(value) else value
        for key, value in values.items()
    }


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in values.items()}


def write_registration(path: Path, registration: Registration) -> None:
    """Write a registration to a file, atomically.

    The file holds the arrays, and a JSON text with all else: error, options, and names
    and fingerprints of both slides.

    Parameters
    ----------
    path : Path
        A ``.npz`` file.
    registration : Registration
        What to write.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    described = {"format": FORMAT, "version": VERSION, **registration.describe()}
    text = json.dumps(described, ensure_ascii=False)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            affine=registration.affine,
            flow=registration.flow,
            description=np.asarray(text),
        )


def read_registration(path: Path) -> Registration:
    """Read a registration from a file.

    Parameters
    ----------
    path : Path
        The file that :func:`write_registration` wrote.

    Returns
    -------
    Registration
        The same registration.

    Raises
    ------
    RegistrationError
        If the file is missing, damaged, or of a newer version.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        raise RegistrationError(
            "registration cannot be read (no such file)", path, "Check the path"
        ) from None
    except _DAMAGED as error:
        raise RegistrationError(
            f"registration cannot be read ({error})", path, "Remove the file"
        ) from None


def _read(path: Path) -> Registration:
    # Nothing is unpickled: a file from elsewhere cannot run code.
    with np.load(path, allow_pickle=False) as stored:
        described = json.loads(str(stored["description"]))
        affine = np.asarray(stored["affine"], np.float64)
        flow = np.asarray(stored["flow"], np.float32)
    _check_version(described, path)
    if affine.shape != (2, 3) or flow.ndim != 3 or flow.shape[2] != 2:
        raise KeyError(f"arrays of shape {affine.shape} and {flow.shape}")
    x, y = described["flow_mpp"]
    return Registration(
        affine,
        flow,
        (float(x), float(y)),
        float(described["correlation"]),
        float(described["overlap"]),
        Residual(**_with_nan(described["residual"])),
        dict(described["first"]),
        dict(described["second"]),
        dict(described["config"]),
        EdgeError(**_with_nan(described.get("edges", {}))),
    )


def _check_version(described: dict[str, Any], path: Path) -> None:
    """Refuse files of other kinds, and of newer versions.

    Raises
    ------
    RegistrationError
        If it is one.
    """
    # Files of the first version state neither.
    if described.get("format", FORMAT) != FORMAT:
        raise RegistrationError("is no registration", path)
    version = described.get("version", 1)
    if version > VERSION:
        raise RegistrationError(
            f"was written by a newer version (format {version}, this program reads up "
            f"to {VERSION})",
            path,
            "Update napari-mcm",
        )
