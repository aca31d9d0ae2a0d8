"""Recognise handwritten digits."""

from operations.load_digits import LoadDigits
from operations.plot_confusion import PlotConfusion
from operations.score import Score
from operations.train import Train
from resources.network import network


def digits(hidden: int = 64, epochs: int = 30):
    images, labels, test_images, test_labels = LoadDigits().execute()
    model, history = Train(network(hidden=hidden), epochs=epochs).execute(images, labels)
    accuracy, answers = Score().execute(model, test_images, test_labels)
    confusion = PlotConfusion().execute(answers, test_labels)
    return model, history, accuracy, confusion


if __name__ == "__main__":
    print(digits())
