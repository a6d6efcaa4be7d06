"""Cost model of the two forms of the Barlow Twins loss."""

# Cost of moving one number between replicas, in multiplications: about 200 on a CPU with 10 Gbit Ethernet, 2,000 on an
# accelerator with its own links. Where it decides, both forms are within a factor of 2 of each other.
MULTIPLICATIONS_PER_NUMBER_MOVED = 1000


def batch_form_is_cheaper(rows, features, replicas=1):
    """Whether the batch form costs less per replica.

    Multiplications: `4 N^2 D / R`, and `3 N D^2 / R` in the feature form. Numbers moved per replica: about `2 N D` to
    gather the embeddings, and `2 D^2` to sum `C`.

    Args:
        rows: N of the global batch, a Python integer or a scalar integer tensor.
        features: D, a Python integer.
        replicas: R, a Python integer; 1 ignores communication.

    Returns:
        A Python boolean, or a boolean tensor where `rows` is a tensor.

    Example:

    >>> batch_form_is_cheaper(256, 8192), batch_form_is_cheaper(256, 128)
    (True, False)
    >>> batch_form_is_cheaper(900, 1024), batch_form_is_cheaper(900, 1024, replicas=64)
    (False, True)
    """
    if replicas == 1:
        return 4 * rows < 3 * features
    moving = 2 * MULTIPLICATIONS_PER_NUMBER_MOVED * (replicas - 1)
    return 4 * rows + moving < (3 + moving / rows) * features
