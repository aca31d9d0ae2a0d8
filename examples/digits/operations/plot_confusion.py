"""Draw which digits are taken for which."""

# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.10", "scikit-learn>=1.6"]
# ///
import io

import matplotlib

matplotlib.use("Agg")  # a job has no screen

from matplotlib import pyplot
from sklearn.metrics import ConfusionMatrixDisplay


class PlotConfusion:
    def execute(self, answers, labels):
        """Return the picture as the bytes of a PNG file."""
        display = ConfusionMatrixDisplay.from_predictions(labels, answers, colorbar=False)
        display.ax_.set_title("Handwritten digits")
        file = io.BytesIO()
        display.figure_.savefig(file, format="png", bbox_inches="tight")
        pyplot.close(display.figure_)
        confusion = file.getvalue()
        return confusion
