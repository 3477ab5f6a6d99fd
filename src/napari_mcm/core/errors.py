"""The errors of the engine, whose messages say what went wrong, where, and what to do next.

Every message is one line that a pathologist can act on. The command line prints it and
exits with :attr:`McmError.exit_code`; the viewer shows it in place, with the traceback
under "details".
"""


class McmError(Exception):
    """Base of all errors that the engine raises on purpose.

    Parameters
    ----------
    what : str
        What went wrong, without a final full stop.
    where : object, optional
        The file, option or patch that it concerns.
    hint : str, optional
        What the user can do next.

    Attributes
    ----------
    what, where, hint : object
        As given.
    exit_code : int
        Exit status of the command line.
    """

    exit_code = 1

    def __init__(self, what: str, where: object = None, hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        place = f"{where}: " if where is not None else ""
        advice = f". {hint}" if hint else ""
        super().__init__(f"{place}{what}{advice}")

    def __reduce__(self) -> tuple[type["McmError"], tuple[str, object, str]]:
        # Errors are pickled between processes (workers, clusters) with all their parts.
        return type(self), (self.what, self.where, self.hint)


class ConfigError(McmError):
    """An option or a configuration file is wrong (exit status 2)."""

    exit_code = 2


class SlideError(McmError):
    """A slide cannot be opened or has no usable physical resolution."""


class TileError(SlideError):
    """A part of a slide's pixels cannot be decoded; the rest may be intact."""


class TruncatedError(SlideError):
    """A slide's file ends before its pixels, as after a copy that was interrupted."""


class GridError(McmError):
    """Patches cannot be laid out as requested: no tissue, no room, upsampling."""


class WeightsError(McmError):
    """An encoder's weights are missing, damaged or of another shape."""


class FeatureError(McmError):
    """A feature file is missing, damaged, incomplete or made with other settings."""


class OutputError(FeatureError):
    """Features cannot be written to their folder, which would fail for every slide."""


class RunError(McmError):
    """A run directory cannot be created, resumed or read."""


class TrainingError(McmError):
    """Training cannot continue: the loss diverged, or there is no training data."""


class RegistrationError(McmError):
    """Two sections cannot be registered: no tissue, or they do not correspond."""


class ProjectError(McmError):
    """A project file is damaged, of a newer version, or changed by another program."""


class LabelError(McmError):
    """Labels of patches, or a classifier of patches, cannot be used or made."""
