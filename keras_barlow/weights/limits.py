"""What reading a file of weights may cost, and the error that refuses a file."""

DAMAGED = "The file is damaged or was not written by these programs: download it, or save it, again."
RESAVE = "If you trust the file, load it with torch and save its state_dict by itself."
# A file may expand by this factor, plus a constant so that small files can hold anything ordinary.
_FACTOR = 8
_CONSTANT = 2**20


class Refused(ValueError):
    """A file that is not read.

    Args:
        reason: What was found in it.
        remedy: What the user can do, as a sentence.
    """

    def __init__(self, reason, remedy=DAMAGED):
        super().__init__(reason)
        self.remedy = remedy

    def about(self, path):
        """The error that users see, which names the file."""
        return ValueError(
            f"The file must be one of torch.save or of safetensors. Received: {path} ({self}). {self.remedy}"
        )


def allowance(size):
    """How much may be made out of `size`: bytes out of bytes, steps out of steps."""
    return _FACTOR * size + _CONSTANT


def shown(text, limit=80):
    """Text of a file for an error message: short, and without control characters."""
    return repr(text[:limit])[1:-1] + ("..." if len(text) > limit else "")
