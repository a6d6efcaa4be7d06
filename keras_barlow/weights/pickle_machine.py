"""Executes a pickle on plain data only, in bounded time and memory.

A pickle is a small program. `pickle.Unpickler` imports and calls the objects it names, hashes and compares the values
it creates, recurses without limit and copies as often as the program asks. This machine does none of that. Every
instruction costs one step, or as many steps as it copies values. A name resolves only to what `find` returns. No value
from the file is hashed or compared: dictionary keys become strings. Every instruction takes at least one byte of the
file, and there are no jumps.
"""

from keras_barlow.weights.limits import RESAVE, Refused
from keras_barlow.weights.pickle_instructions import INSTRUCTIONS
from keras_barlow.weights.pickle_values import Global

_STEPS = 4_000_000
_BYTES = 2**30
_LINE = 1000


class Machine:
    """Executes the pickles in a file one after another.

    Args:
        file: Open file, positioned at the first byte of a pickle.
        end: Position of the end of the file.
        find: Function that maps a module name and an object name to a `Global`, or raises.
        persistent: Function that maps the persistent ID of a storage to the storage.
    """

    def __init__(self, file, end, find, persistent):
        self.steps = 0
        self.find = find
        self.persistent = persistent
        self._file = file
        self._left = min(end - file.tell(), _BYTES)

    def run(self):
        """Executes the next pickle and returns its value.

        Raises:
            Refused: If the pickle is damaged or costs too much.
        """
        self._memo, self._outer, self.stack = {}, [], []
        try:
            while (code := self.take(1)) != b".":
                self.spend(1)
                instruction = INSTRUCTIONS.get(code)
                if instruction is None:
                    raise Refused(f"its pickle has the instruction {code!r}, which torch.save does not write")
                instruction(self)
            return self.stack.pop()
        except IndexError:
            raise Refused("its pickle uses values that it has not created") from None

    def spend(self, steps):
        self.steps += steps
        if self.steps > _STEPS:
            raise Refused(f"its pickle takes more than {_STEPS} steps", RESAVE)

    def take(self, length):
        """Reads bytes of the program."""
        self._left -= length
        if self._left < 0 or length < 0:
            raise Refused("its pickle ends too early")
        data = self._file.read(length)
        if len(data) != length:
            raise Refused("its pickle ends too early")
        return data

    def line(self):
        line = self._file.readline(min(self._left, _LINE))
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise Refused("its pickle ends too early")
        return line[:-1]

    def marked(self):
        """Pops and returns the values since the last mark."""
        values, self.stack = self.stack, self._outer.pop()
        return values

    def mark(self):
        self._outer.append(self.stack)
        self.stack = []

    def last(self, count):
        """Pops and returns the last `count` values."""
        if len(self.stack) < count:
            raise IndexError
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def remember(self, number):
        self._memo[number] = self.stack[-1]

    def remember_next(self):
        self.remember(len(self._memo))

    def recall(self, number):
        if number not in self._memo:
            raise IndexError
        self.stack.append(self._memo[number])

    def call(self, function, arguments):
        if type(function) is not Global or type(arguments) is not tuple:
            raise Refused("its pickle calls something that is not a function")
        result = function.call(arguments)
        if type(result) in (dict, list, tuple):
            self.spend(len(result))  # The result may be a copy.
        self.stack.append(result)
