"""Limits on the cost of reading a weights file, and the error that rejects a file."""

DAMAGED = "The file is damaged or has another format. Download or save it again."
RESAVE = "If you trust the file, load it with torch and save its state_dict by itself."
# A file may expand by this factor, plus a constant that is enough for any ordinary small file.
_FACTOR = 8
_CONSTANT = 2**20


class Refused(ValueError):
    """Rejects a file.

    Args:
        reason: Description of the problem, as a noun phrase or a clause.
        remedy: Sentence that says what the user can do.
    """

    def __init__(self, reason, remedy=DAMAGED):
        super().__init__(reason)
        self.remedy = remedy

    def about(self, path):
        """Returns the error for users, which names the file."""
        return ValueError(
            f"The file must be written by torch.save or safetensors. Received: {path} ({self}). {self.remedy}"
        )


def allowance(size):
    """Returns the largest output, in bytes or steps, that an input of `size` bytes or steps may produce."""
    return _FACTOR * size + _CONSTANT


def shown(text, limit=80):
    """Shortens and escapes text from a file for an error message."""
    return repr(text[:limit])[1:-1] + ("..." if len(text) > limit else "")
