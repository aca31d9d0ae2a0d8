"""Greet somebody, then say it louder."""

from operations.greet import Greet
from operations.shout import Shout


def hello(name: str = "world"):
    greeting = Greet(name=name).execute()
    shouted, letters = Shout().execute(greeting)
    return shouted, letters
