"""What is known of the present slide, and what is odd about it."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QGroupBox, QLabel, QVBoxLayout, QWidget

from napari_mcm.core.errors import McmError
from napari_mcm.core.grid import GridConfig, common_mpp
from napari_mcm.core.slides import Slide
from napari_mcm.viewer.session import Session
from napari_mcm.viewer.slide_facts import slide_of
from napari_mcm.viewer.widgets.parts import follow, note

ROWS = ("Size", "Resolution", "Objective", "Vendor", "Levels", "Read by", "Patches")
UNKNOWN = "not stated"


class FactsBox(QGroupBox):
    """Properties of the slide, how patches are read from it, and its warnings.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Properties")
        self._session = session
        self.rows = {row: note() for row in ROWS}
        self.warnings = note()
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(3)
        for row, value in self.rows.items():
            value.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse
                | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
            value.setAccessibleName(row)
            label = QLabel(row)
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
            form.addRow(label, value)
        self._table = QWidget()
        self._table.setLayout(form)
        column = QVBoxLayout(self)
        column.addWidget(self._table)
        column.addWidget(self.warnings)
        follow(session.slide_changed, self.refresh)
        follow(session.patches_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present slide."""
        slide = slide_of(self._session.slide)
        self.setVisible(slide is not None)
        if slide is None:
            return
        values = (
            size(slide),
            resolution(slide),
            objective(slide),
            vendor(slide),
            levels(slide),
            slide.backend,
            reading(slide, self._session.patches),
        )
        for row, value in zip(ROWS, values, strict=True):
            self.rows[row].setText(value)
        self.rows["Levels"].setToolTip(
            "\n".join(f"{w:,} × {h:,} px" for w, h in (v.size for v in slide.levels))
        )
        lines = [f"Warning: {line}" for line in slide.warnings]
        self.warnings.setText("\n".join(lines))
        self.warnings.setVisible(bool(lines))


def size(slide: Slide) -> str:
    """Say how large a slide is, in pixels and millimetres."""
    width, height = slide.size
    text = f"{width:,} × {height:,} px"
    if (mpp := slide.stated_mpp) is None:
        return text
    return f"{text}\n{width * mpp[0] / 1000:.3g} × {height * mpp[1] / 1000:.3g} mm"


def resolution(slide: Slide) -> str:
    """Say how fine a slide is, and who says so."""
    if (mpp := slide.stated_mpp) is None:
        return UNKNOWN
    source = "as you stated" if slide.mpp_override else "from the file"
    numbers = dict.fromkeys(f"{value:.4g}" for value in mpp)
    return f"{' × '.join(numbers)} µm/px, {source}"


def objective(slide: Slide) -> str:
    """Name the power of the objective."""
    power = slide.properties.get("objective", "")
    return f"{power}×" if power else UNKNOWN


def vendor(slide: Slide) -> str:
    """Name vendor and model, as the file does."""
    named = (slide.properties.get(key, "") for key in ("vendor", "model"))
    known = [name for name in named if name and name.lower() != "unknown"]
    return ", ".join(dict.fromkeys(known)) or UNKNOWN


def levels(slide: Slide) -> str:
    """Count levels, and say by how much each is coarser."""
    stored = sum(level.stored for level in slide.levels)
    factors = ", ".join(f"{level.downsample[0]:.3g}×" for level in slide.levels)
    made = len(slide.levels) - stored
    return f"{stored}{f' and {made} made' if made else ''} ({factors})"


def reading(slide: Slide, patches: GridConfig) -> str:
    """Say from which level patches are read, and by how much they are shrunk."""
    if slide.stated_mpp is None:
        return UNKNOWN
    try:
        mpp = common_mpp([slide], patches)
    except McmError as error:
        return f"none: {getattr(error, 'what', error)}"
    plan = slide.plan(mpp)
    how = "as stored" if plan.exact else f"shrunk {plan.factor[0]:.4g}×"
    if plan.factor[0] < 1:
        how = f"enlarged {1 / plan.factor[0]:.4g}×"
    return f"{mpp:.4g} µm/px: level {plan.level}, {how}"
