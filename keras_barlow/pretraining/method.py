"""What a method defines: the parts of a training step that differ from paper to paper."""

from keras_barlow.pretraining import batch_sizes


class Method:
    """The hooks of a method. Every method defines `default_loss` and `embeddings`, and the others as it needs them.

    Attributes:
        default_loss: Class of the loss of the method.
        max_views: The largest number of views that the method compares. None for any number.
    """

    default_loss = None
    max_views = 2

    def embeddings(self, views, training):
        """The embeddings that the loss compares. Every method defines it.

        Args:
            views: Tuple of float tensors `(batch, height, width, channels)` on 0..255.
            training: Python boolean.

        Returns:
            Tuple of float tensors `(batch, D)`, the arguments of the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `embeddings(views, training)`.")

    def mixing(self, step):
        """The share of view A in a third view, a mixture of images; see `batch_views.draw`. By default there is none.

        Args:
            step: Scalar integer tensor, the number of the step.

        Returns:
            A scalar float tensor, or None.
        """

    def constants(self, step):
        """Tensors that the loss takes besides the embeddings, such as a queue. They get no gradient.

        Args:
            step: Scalar integer tensor, the number of the step.

        Returns:
            Dictionary of tensors that are equal on every replica. By default it is empty.
        """
        return {}

    def after_step(self, embeddings):
        """Updates momentum copies and queues after each step. By default there are none.

        Args:
            embeddings: Tuple of tensors `(n, D)`: the embeddings of this replica's rows of the batch.
        """

    @property
    def row_limits(self):
        """`batch_sizes.RowLimits`: how many images a batch may have, at least 2 unless the method says otherwise."""
        return batch_sizes.RowLimits()
