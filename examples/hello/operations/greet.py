"""Write a greeting."""


class Greet:
    """An operation: its constructor takes attributes, its `execute` takes inputs."""

    def __init__(self, name: str = "world"):
        self.name = name

    def execute(self):
        greeting = f"Hello, {self.name}!"
        print(greeting)
        return greeting
