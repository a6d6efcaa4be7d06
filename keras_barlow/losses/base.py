"""The contract of a loss: the terms of the whole batch, and the exact gradient of this replica's rows."""

import functools
import inspect

from keras import ops

from keras_barlow import distribution, engine


class Loss:
    """Base class of losses that are functions of the embeddings of the whole batch.

    A subclass writes `terms`, the paper's equation for the embeddings of the whole batch, and lists the names of its
    terms in `log_names`. It never mentions devices: `value_and_gradient` gathers the rows of all replicas and
    differentiates `terms` on each of them. A subclass may override it with a cheaper form of the same numbers.

    A loss may take tensors besides the embeddings, such as a queue. They are keyword arguments of `terms`, equal on
    every replica, and get no gradient (`JointEmbedding.constants`).

    Attributes:
        log_names: Names of the terms, `"loss"` first. They become the logs of `fit`.

    Example:

    >>> import keras
    >>> class Distance(Loss):
    ...     "Mean squared distance of two views."
    ...     def terms(self, z_a, z_b):
    ...         return {"loss": ops.mean(ops.sum(ops.square(z_a - z_b), axis=1))}
    >>> z = keras.random.normal((8, 4), seed=0)
    >>> float(Distance()(z, z))
    0.0
    """

    log_names = ("loss",)

    def terms(self, *z, **constants):
        """The terms of the loss.

        Args:
            *z: Float tensors `(N, D)`: the embeddings of the whole batch, one tensor per view.
            **constants: Further tensors, which get no gradient. Most losses take none.

        Returns:
            Dictionary of scalars with the keys `log_names`. `"loss"` is what is minimized.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `terms(*z)`.")

    def value_and_gradient(self, *z, total_rows=None, **constants):
        """The terms of the global batch, and the exact gradient with respect to this replica's rows.

        Under a strategy, inside `strategy.run`, the terms are the same on every replica. The gradients of the weights
        must be SUMMED over replicas (Keras' optimizers do so), and nothing is divided by the number of replicas.
        Replicas may have different numbers of rows, or none.

        Args:
            *z: Float tensors `(n, D)`: the embeddings of this replica's rows, one tensor per view.
            total_rows: Number of rows of the global batch as a Python integer, the same on every replica; None if
                unknown. A loss may choose a cheaper computation with it.
            **constants: Tensors for `terms`, equal on every replica.

        Returns:
            The tuple `(terms, *gradients)`: a dictionary of scalars, and one gradient per tensor of `z`, of its shape,
            in float32 (float64 for float64 embeddings).
        """
        z = self.checked(*z)
        count = ops.shape(z[0])[0]
        every_row, first = list(z), 0
        if distribution.replica_count() > 1:
            first, _ = distribution.own_rows(count)
            every_row = [distribution.gather_rows(embeddings) for embeddings in z]
        terms, gradients = engine.value_and_gradient(functools.partial(self.terms, **constants), every_row)
        return terms, *(gradient[first : first + count] for gradient in gradients)

    def __call__(self, *z, **constants):
        """The loss as a scalar that can be differentiated once.

        Args:
            *z: Float tensors `(n, D)`: the embeddings of this replica's rows, one tensor per view.
            **constants: Tensors for `terms`, equal on every replica.

        Returns:
            A scalar.
        """

        @ops.custom_gradient
        def loss(*z):
            terms, *gradients = self.value_and_gradient(*z, **constants)

            def gradient(*arguments, upstream=None):
                # JAX and TensorFlow pass the upstream gradient positionally, PyTorch by name.
                upstream = arguments[-1] if upstream is None else upstream
                return tuple(upstream * gradient for gradient in gradients)

            return terms["loss"], gradient

        return loss(*self.checked(*z))

    def checked(self, *z):
        """The embeddings in full precision.

        Args:
            *z: Float tensors `(n, D)`.

        Returns:
            Tuple of float32 tensors; float64 if one of them is float64.

        Raises:
            ValueError: If their shapes differ, or are not of rank 2.
        """
        z = [ops.convert_to_tensor(embeddings) for embeddings in z]
        shapes = [tuple(embeddings.shape) for embeddings in z]
        if any(len(shape) != 2 for shape in shapes) or len(set(shapes)) > 1:
            raise ValueError(
                "The embeddings of all views must have one shape (batch, features). "
                f"Received shapes: {', '.join(map(str, shapes))}"
            )
        dtype = engine.full_precision(*(embeddings.dtype for embeddings in z))
        return tuple(ops.cast(embeddings, dtype) for embeddings in z)

    def get_config(self):
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def checked_rows(z, reason):
    """The embeddings of a loss that takes statistics over the batch, if there is more than one image.

    Args:
        z: Tuple of float tensors `(n, D)`.
        reason: Why there must be two, as the beginning of the error.

    Returns:
        `z`.

    Raises:
        ValueError: If there is one image. Several replicas are checked by the training step.
    """
    if z[0].shape[0] == 1 and distribution.replica_count() == 1:
        raise ValueError(
            f"{reason}, so a batch needs at least 2 images. Received: embeddings of shape {tuple(z[0].shape)}. Use a "
            "larger batch, or drop_remainder=True if only the last batch has 1 image."
        )
    return z
