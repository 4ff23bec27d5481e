"""Everything this package raises on purpose, so that callers never need to know what torch raises.

Every message names the argument or file, what was expected, what it got and what to do.
"""


class Sam2Error(Exception):
    """Base of all errors raised on purpose by `sam2`."""


class BadInput(Sam2Error, ValueError):
    """An argument was refused; nothing has changed."""


class Stale(BadInput):
    """A prompt names a frame that is older than the kept history, or one that was never seen; or a saved file is older
    than the caller allows."""


class MaskTooThin(BadInput):
    """Nothing of a mask prompt is left at the size of the network's input."""


class UnknownObject(BadInput, RuntimeError):
    """No live object has this id. Also a RuntimeError, like the official predictor's."""


class LimitReached(BadInput):
    """Accepting this would exceed a bound of `Limits`."""


class BadCheckpoint(Sam2Error, RuntimeError):
    """A weights file is missing, damaged, unsafe, or belongs to another model. Also a RuntimeError, like upstream's."""


class OutOfMemory(Sam2Error):
    """The device has no memory left for this step; nothing was half-applied."""


class DeviceLost(Sam2Error):
    """The device stopped answering; only a new process can recover it."""
