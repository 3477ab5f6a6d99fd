"""Registration of serial sections: where a place of one lies in the next.

:func:`register_sections` is the job: tissue and stain of both sections at low resolution,
a search over all angles, sides and shifts, an affine fit, then a smooth flow. It returns
a :class:`Registration`, whose :meth:`~Registration.map_um` maps places in microns and whose
:attr:`~Registration.residual` is its error, measured on tissue that the fit left out.
:func:`section_map` gives the map between two open slides in level-0 pixels, in either
direction; :mod:`.carry` carries points, patches, regions and masks over with it.
"""

from napari_mcm.core.registration.config import RegistrationConfig
from napari_mcm.core.registration.mapping import SectionMap, section_map
from napari_mcm.core.registration.register import register_sections
from napari_mcm.core.registration.result import (
    EdgeError,
    Registration,
    Residual,
    read_registration,
    write_registration,
)

__all__ = [
    "EdgeError",
    "Registration",
    "RegistrationConfig",
    "Residual",
    "SectionMap",
    "read_registration",
    "register_sections",
    "section_map",
    "write_registration",
]
