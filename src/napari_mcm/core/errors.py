"""The errors of the engine: a small family whose messages say what, where and what next.

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
    """

    exit_code = 1

    def __init__(self, what: str, where: object = None, hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        place = f"{where}: " if where is not None else ""
        advice = f". {hint}" if hint else ""
        super().__init__(f"{place}{what}{advice}")

    def __reduce__(self) -> tuple[type["McmError"], tuple[str, object, str]]:
        # Errors cross process borders (sample workers, clusters) with their parts.
        return type(self), (self.what, self.where, self.hint)


class ConfigError(McmError):
    """An option or a configuration file is wrong (exit status 2)."""

    exit_code = 2


class SlideError(McmError):
    """A slide cannot be opened or has no usable physical resolution."""


class TileError(SlideError):
    """A part of a slide's pixels cannot be decoded; the rest of it may be fine."""


class GridError(McmError):
    """Patches cannot be laid out as asked: no tissue, no room, upsampling."""


class WeightsError(McmError):
    """An encoder's weights are missing, damaged or of another shape."""


class FeatureError(McmError):
    """A feature file is missing, damaged, incomplete or made with another recipe."""


class OutputError(FeatureError):
    """Nothing can be written where features go: it would fail for each slide alike."""


class RunError(McmError):
    """A run directory cannot be created, resumed or read."""


class TrainingError(McmError):
    """Training cannot go on: the loss diverged or there is nothing to learn from."""
