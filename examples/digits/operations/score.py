"""Ask a trained model about images it has never seen."""

# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.6"]
# ///
from sklearn.metrics import accuracy_score


class Score:
    def execute(self, model, images, labels):
        """Return the share of right answers, and the answers."""
        answers = model.predict(images)
        accuracy = float(accuracy_score(labels, answers))
        print(f"accuracy {accuracy:.3f}")
        return accuracy, answers
