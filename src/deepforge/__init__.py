"""Design machine-learning pipelines and run them on your own compute, with data in your own storage."""

__version__ = "0.1.0"

__all__ = ["__version__"]
