"""Square one of the numbers."""


class Square:
    def __init__(self, place: int):
        self.place = place

    def execute(self, numbers):
        square = numbers[self.place] ** 2
        print(f"{numbers[self.place]} squared is {square}")
        return square
