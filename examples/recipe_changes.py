"""Changes of a recipe as a flag."""

import json

EXAMPLE = '{"encoder_options": {"width": 16}}'


def parsed(text):
    """Returns the arguments of `Recipe.changed` from JSON; lists become tuples.

    Args:
        text: A JSON object.

    Raises:
        ValueError: If it is not one.
    """
    try:
        changes = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--changes must be JSON. Received: {text}: {error}. Example: '{EXAMPLE}'.") from None
    if not isinstance(changes, dict):
        raise ValueError(f"--changes must be a JSON object. Received: {text}. Example: '{EXAMPLE}'.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
