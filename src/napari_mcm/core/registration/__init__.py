"""Registration of serial sections: where a place of one lies in the next.

:func:`register_sections` is the job: tissue and stain of both sections at low resolution,
a search over all angles, sides and shifts, an affine fit, then a smooth flow. It returns
a :class:`Registration`, whose :meth:`~Registration.map_um` maps places in microns and whose
:attr:`~Registration.residual` is its error, measured on tissue that the fit left out.
:func:`section_map` gives the map between two open slides in level-0 pixels, in either
direction; :mod:`.carry` carries points, patches, regions and masks over with it.
"""

import lazy_loader

# SciPy and scikit-image are imported when sections are registered.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["RegistrationConfig"],
        "mapping": ["SectionMap", "section_map"],
        "register": ["register_sections"],
        "result": [
            "EdgeError",
            "Registration",
            "Residual",
            "read_registration",
            "write_registration",
        ],
    },
)
