"""Add up any number of parts."""


class Total:
    def execute(self, *parts):
        """One port that takes as many inputs as it is given."""
        total = sum(parts)
        print(f"{len(parts)} parts make {total}")
        return total
