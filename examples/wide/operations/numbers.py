"""Make the numbers that the others share out."""


class Numbers:
    def __init__(self, count: int = 100):
        self.count = count

    def execute(self):
        numbers = list(range(1, self.count + 1))
        return numbers
