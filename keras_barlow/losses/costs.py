"""Which of two equal forms of the Barlow Twins loss costs less."""

# What moving one number between replicas costs, in multiplications: some 200 on a CPU behind 10 Gbit Ethernet, 2,000
# on an accelerator with its own links. Where it decides, both forms are within a factor of 2 of each other.
MULTIPLICATIONS_PER_NUMBER_MOVED = 1000


def batch_form_is_cheaper(rows, features, replicas=1):
    """Whether the batch form costs a replica less.

    Its multiplications are `4 N^2 D / R` against `3 N D^2 / R`. It gathers the embeddings, about `2 N D` numbers for a
    replica; the feature form sums `C`, about `2 D^2` numbers.

    Args:
        rows: N of the global batch, a Python integer or a scalar integer tensor.
        features: D, a Python integer.
        replicas: R, a Python integer; 1 where communication is no matter of choice.

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
