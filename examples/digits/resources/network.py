"""The architecture that is trained: one hidden layer."""

from sklearn.neural_network import MLPClassifier


def network(hidden: int = 64):
    """Return a network with `hidden` neurons between the 64 pixels and the 10 digits."""
    return MLPClassifier(hidden_layer_sizes=(hidden,), learning_rate_init=0.005, random_state=0)
