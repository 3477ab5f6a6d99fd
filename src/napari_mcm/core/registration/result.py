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
        Identity of the sections: name and fingerprint.
    config : dict
        The options it was made with.
    """

    affine: Affine
    flow: Flow
    flow_mpp: tuple[float, float]
    correlation: float
    overlap: float
    residual: Residual
    first: dict[str, str]
    second: dict[str, str]
    config: dict[str, Any]

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

    def describe(self) -> dict[str, Any]:
        """Return everything but the arrays, ready for JSON.

        Returns
        -------
        dict
            Numbers that are not finite are None.
        """
        residual = {
            key: None if isinstance(value, float) and np.isnan(value) else value
            for key, value in asdict(self.residual).items()
        }
        return {
            "first": dict(self.first),
            "second": dict(self.second),
            "angle_deg": self.angle_deg,
            "mirrored": self.mirrored,
            "correlation": self.correlation,
            "overlap": self.overlap,
            "residual": residual,
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


def write_registration(path: Path, registration: Registration) -> None:
    """Write a registration to a file.

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
    text = json.dumps(registration.describe(), ensure_ascii=False)
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
        If the file is missing or damaged.
    """
    try:
        return _read(path)
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
    residual: dict[str, Any] = {
        key: float("nan") if value is None else value
        for key, value in described["residual"].items()
    }
    if affine.shape != (2, 3) or flow.ndim != 3 or flow.shape[2] != 2:
        raise KeyError(f"arrays of shape {affine.shape} and {flow.shape}")
    x, y = described["flow_mpp"]
    return Registration(
        affine,
        flow,
        (float(x), float(y)),
        float(described["correlation"]),
        float(described["overlap"]),
        Residual(**residual),
        dict(described["first"]),
        dict(described["second"]),
        dict(described["config"]),
    )
