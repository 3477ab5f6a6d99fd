"""Show the figures and the predictions of a run as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_mcm.viewer.mil.run import Figure, MilRun, SlideRow

_TITLES = {
    "auroc": "AUROC",
    "average_precision": "Av. prec.",
    "balanced_accuracy": "Bal. acc.",
    "f1": "F1",
    "ece": "ECE",
}
_TIPS = {
    "auroc": "AUROC: each class against the rest, averaged; 0.5 is chance",
    "average_precision": "Average precision: area under precision and recall",
    "balanced_accuracy": "Balanced accuracy: mean recall of the classes",
    "f1": "F1: macro-averaged over classes",
    "ece": "Expected calibration error: confidence against accuracy; 0 is best",
}
Role = Qt.ItemDataRole


class FiguresTable(QTableWidget):
    """Show each figure with its interval, beside the majority-class baseline."""

    def __init__(self) -> None:
        super().__init__(0, 4)
        self.setAccessibleName("Figures of the run")
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        _fit(self)

    def show_run(self, run: MilRun) -> None:
        """Show the figures of a run."""
        self.setHorizontalHeaderLabels(["", "Pooled", "95 %", "Majority"])
        self.setRowCount(len(run.figures))
        for row, figure in enumerate(run.figures):
            texts = (
                _TITLES.get(figure.name, figure.name),
                number(figure.value),
                "–".join(number(end, 2) for end in figure.interval),
                number(figure.majority),
            )
            tip = _tip(figure, run.resampled)
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(tip)
                self.setItem(row, column, item)
        header = self.horizontalHeader()
        assert header is not None
        rows = sum(self.rowHeight(row) for row in range(self.rowCount()))
        self.setFixedHeight(header.sizeHint().height() + rows + 2)


class PredictionModel(QAbstractTableModel):
    """Hold slides with their labels and predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Sequence[SlideRow] = ()
        self._classes: tuple[str, ...] = ()

    def take(self, run: MilRun) -> None:
        """Take the predictions of a run."""
        self.beginResetModel()
        self.rows, self._classes = run.rows, run.classes
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of slides."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else 4

    def headerData(
        self, section: int, orientation: Any, role: int = Role.DisplayRole
    ) -> Any:
        """Return the title of a column, or its tool tip."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Role.DisplayRole:
            return ("Slide", "Label", "Predicted", "Score")[section]
        if role == Role.ToolTipRole and section == 3:
            return f"Probability of {scored(self._classes)}"
        return None

    def data(self, index: QModelIndex, role: int = Role.DisplayRole) -> Any:
        """Return the content of a cell; a cross marks a wrong prediction."""
        row = self.rows[index.row()]
        score = self._score(row)
        if role == Role.UserRole:
            wrong = f"{int(row.label == row.predicted)}{row.predicted}"
            return (row.slide, row.label, wrong, score)[index.column()]
        if role == Role.DisplayRole:
            mark = "" if row.label == row.predicted else "✗ "
            shown = (row.slide, row.label, f"{mark}{row.predicted}", f"{score:.3f}")
            return shown[index.column()]
        if role == Role.ToolTipRole:
            pairs = zip(self._classes, row.probabilities, strict=True)
            each = ", ".join(f"{name} {p:.3f}" for name, p in pairs)
            right = "correct" if row.label == row.predicted else "wrong"
            return f"{row.slide}: {each}\nPredicted {row.predicted}, {right}"
        return None

    def _score(self, row: SlideRow) -> float:
        return (
            row.probabilities[1] if len(self._classes) == 2 else max(row.probabilities)
        )


class PredictionTable(QTableView):
    """Show the slides of a run, sorted by a click on a header.

    Attributes
    ----------
    opened : Signal
        A slide was double-clicked, or Enter was pressed on it.
    picked : Signal
        The selection has changed.
    """

    opened = Signal(str)
    picked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.content, self.order = PredictionModel(), QSortFilterProxyModel()
        self.order.setSourceModel(self.content)
        self.order.setSortRole(Role.UserRole)
        self.setModel(self.order)
        self.setAccessibleName("Predictions of slides that models have not seen")
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTabKeyNavigation(False)
        self.setMinimumHeight(190)
        _fit(self)
        self.activated.connect(lambda _: self._open())
        selection = self.selectionModel()
        assert selection is not None
        selection.selectionChanged.connect(lambda *_: self.picked.emit())
        self.order.modelReset.connect(self.picked.emit)

    def show_run(self, run: MilRun) -> None:
        """Show the predictions of a run."""
        self.content.take(run)
        header = self.horizontalHeader()
        assert header is not None
        # As wide as the contents; headers, which are padded, may be cut.
        for column, least in ((1, 50), (2, 66), (3, 50)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Interactive)
            header.resizeSection(column, max(self.sizeHintForColumn(column), least))

    def slide(self) -> str:
        """Return the name of the selected slide; empty where none is."""
        selection = self.selectionModel()
        rows = selection.selectedRows() if selection is not None else []
        if not rows:
            return ""
        return self.content.rows[self.order.mapToSource(rows[0]).row()].slide

    def _open(self) -> None:
        if name := self.slide():
            self.opened.emit(name)


def scored(classes: Sequence[str]) -> str:
    """Return the class that the score is the probability of."""
    return classes[1] if len(classes) == 2 else "the predicted class"


def number(value: float | None, digits: int = 3) -> str:
    """Format a figure; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _tip(figure: Figure, resampled: str) -> str:
    folds = ", ".join(number(value) for value in figure.folds)
    return (
        f"{_TIPS.get(figure.name, '')}\nFolds: {folds}\n"
        f"Interval: bootstrap by {resampled}\n"
        "Majority: majority-class baseline"
    )


def _fit(table: Any) -> None:
    """Fit a table into a narrow dock."""
    modes = QHeaderView.ResizeMode
    header = table.horizontalHeader()
    header.setSectionResizeMode(modes.ResizeToContents)
    header.setSectionResizeMode(0, modes.Stretch)
    header.setMinimumSectionSize(40)
    header.setHighlightSections(False)
    rows = table.verticalHeader()
    rows.setVisible(False)
    rows.setMinimumSectionSize(10)
    rows.setDefaultSectionSize(table.fontMetrics().height() + 8)
    table.setMinimumWidth(100)
    table.setWordWrap(False)
    assert isinstance(table, QWidget)
