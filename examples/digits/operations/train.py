"""Train a network, one pass over the images after another."""

# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.6"]
#
# [tool.deepforge.resources]
# cpus = 1
# memory = "1 GiB"
# time = "10 min"
# ///
import numpy


class Train:
    def __init__(self, network, epochs: int = 30):
        """`network` is a model from `resources/`, not trained yet."""
        self.network = network
        self.epochs = epochs

    def execute(self, images, labels):
        """Return the trained model and the loss after each epoch."""
        model = self.network
        classes = numpy.unique(labels)
        history = []
        for epoch in range(1, self.epochs + 1):
            model.partial_fit(images, labels, classes=classes)
            history.append(float(model.loss_))
            print(f"epoch {epoch}/{self.epochs}: loss {model.loss_:.4f}")
        return model, history
