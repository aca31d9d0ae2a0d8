"""The files that an operation's code can reach."""

from __future__ import annotations

from deepforge.pipelines.closure import source_closure

FILES = {
    "operations/__init__.py": b"",
    "operations/train.py": b"import numpy\nfrom utils import images, nothing\nclass Train: ...",
    "operations/other.py": b"",
    "resources/vgg.py": b"def vgg():\n    from utils.layers import layer as l",
    "utils/__init__.py": b"from . import shared",
    "utils/shared.py": b"import utils",
    "utils/images.py": b"import utils.colours.rgb as rgb",
    "utils/colours/__init__.py": b"",
    "utils/colours/rgb.py": b"from ..shared import x\nfrom .hsv import y",
    "utils/colours/hsv.py": b"this is not Python",
    "utils/layers.py": b"",
    "utils/unused.py": b"",
    "pipelines/main.py": b"from operations.train import Train",
    "serializers.py": b"import utils.formats",
    "utils/formats.py": b"",
    "requirements.txt": b"numpy",
    "README.md": b"",
}


def test_imports_are_followed_through_packages_and_functions() -> None:
    assert source_closure(FILES, ["operations.train"]) == (
        "operations/__init__.py",
        "operations/train.py",
        "requirements.txt",
        "serializers.py",
        "utils/__init__.py",
        "utils/colours/__init__.py",
        "utils/colours/hsv.py",
        "utils/colours/rgb.py",
        "utils/formats.py",
        "utils/images.py",
        "utils/shared.py",
    )


def test_resources_count_when_they_are_named() -> None:
    reached = source_closure(FILES, ["operations.other", "resources.vgg"])

    assert "resources/vgg.py" in reached
    assert "utils/layers.py" in reached
    assert "utils/images.py" not in reached


def test_what_is_not_there_is_not_reached() -> None:
    assert source_closure({"operations/a.py": b"from .... import x"}, ["operations.a", "b"]) == (
        "operations/a.py",
    )
