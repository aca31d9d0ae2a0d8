"""Say it louder."""


class Shout:
    """The names it returns are its outputs."""

    def execute(self, greeting):
        shouted = greeting.upper()
        letters = len(shouted)
        print(f"{shouted} ({letters} characters)")
        return shouted, letters
