"""Registration of serial sections: where a place of one lies in the next.

:func:`register_sections` is the job: tissue and stain of both sections at low resolution,
a search over all angles, sides and shifts, an affine fit, then a smooth flow. It returns
a :class:`Registration`, whose :meth:`~Registration.map_um` maps places in microns and whose
:attr:`~Registration.residual` is its error, measured on tissue that the fit left out.
"""

from napari_mcm.core.registration.config import RegistrationConfig
from napari_mcm.core.registration.register import register_sections
from napari_mcm.core.registration.result import (
    Registration,
    Residual,
    read_registration,
    write_registration,
)

__all__ = [
    "Registration",
    "RegistrationConfig",
    "Residual",
    "read_registration",
    "register_sections",
    "write_registration",
]
