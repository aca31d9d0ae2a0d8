"""Load the handwritten digits that come with scikit-learn: 1,797 real images of 8 x 8 pixels."""

# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.6"]
# ///
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class LoadDigits:
    def __init__(self, held_out: float = 0.25):
        """`held_out` is the share of the images that training never sees."""
        self.held_out = held_out

    def execute(self):
        """Return images as float64[n, 64] from 0 to 1 and labels as int64[n] from 0 to 9."""
        digits = load_digits()
        images, test_images, labels, test_labels = train_test_split(
            digits.data / 16,
            digits.target,
            test_size=self.held_out,
            stratify=digits.target,
            random_state=0,
        )
        print(f"{len(images)} images to learn from, {len(test_images)} held out")
        return images, labels, test_images, test_labels
