"""What may stand in a pipeline file, one rule after another."""

from __future__ import annotations

import pytest

from deepforge.errors import InvalidProject
from deepforge.pipelines.project import read_pipeline
from pipelines.samples import complaint, complaints, graph_of, pipeline, project


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("if True: pass", "a condition (`if`) is not allowed in a pipeline"),
        ("for x in (1, 2): pass", "a loop (`for`) is not allowed in a pipeline"),
        ("while True: pass", "a loop (`while`) is not allowed in a pipeline"),
        ("with open('x') as f: pass", "`with` is not allowed in a pipeline"),
        ("try: pass\nexcept OSError: pass", "`try` is not allowed in a pipeline"),
        ("match 1:\n    case 1: pass", "`match` is not allowed in a pipeline"),
        ("raise SystemExit", "`raise` is not allowed in a pipeline"),
        ("assert True", "`assert` is not allowed in a pipeline"),
        ("del x", "`del` is not allowed in a pipeline"),
        ("global x", "`global` is not allowed in a pipeline"),
        ("import os", "an import within the function is not allowed in a pipeline"),
        ("def inner(): pass", "a function is not allowed in a pipeline"),
        ("class Inner: pass", "a class is not allowed in a pipeline"),
        ("x: int = 3", "an annotated target is not allowed in a pipeline"),
        ("x += 1", "`+=` and its like is not allowed in a pipeline"),
        ("'a text beside the docstring'", "a constant is not allowed in a pipeline"),
        ("[x for x in (1, 2)]", "a comprehension is not allowed in a pipeline"),
        ("lambda: 1", "a lambda is not allowed in a pipeline"),
        ("f'{1}'", "an f-string is not allowed in a pipeline"),
        ("x = 3", "a name is bound to a constant, not to a call"),
        ("x = [1, 2]", "a name is bound to a list, not to a call"),
        ("x = Load", "a name is bound to another name, not to a call"),
        ("x = Load().execute", "a name is bound to an attribute of an object, not to a call"),
        ("a = b = Score().execute(None, None)", "a chained assignment (`a = b = ...`)"),
        ("a, *b = Load().execute()", "a starred name as a target"),
        ("a.b, c = Load().execute()", "an attribute of an object as a target"),
        ("a[0] = Score().execute(None, None)", "an item of an object as a target"),
        ("[a, b] = Load().execute()", "a list as a target"),
        ("a, (b, c) = Load().execute()", "a tuple as a target"),
        ("(a,) = Score().execute(None, None)", "a target tuple of fewer than two names"),
        ("a, a = Load().execute()", "`a` is bound twice"),
        ("print('hello')", "`print` is Python's own, and not part of a pipeline"),
        ("Train()", "the operation `Train` is made and not executed"),
        ("vgg()", "the resource `vgg` is called by itself"),
        ("vgg().execute()", "the resource `vgg` is used as an operation"),
        ("Load.execute()", "a call of `execute` of another name"),
        ("Load().run()", "a call of `run` of a call"),
        ("Lod().execute()", "there is no name `Lod`"),
        ("(lambda: 1)()", "a lambda is called"),
        ("operations.load.Load().execute()", "an attribute of an object is called"),
        ("main()", "the pipeline `main` calls itself"),
    ],
)
def test_anything_else_is_a_finding_with_its_line(statement: str, message: str) -> None:
    [first, *_] = complaints(pipeline(f"pass\n{statement}"))

    assert first == f"pipelines/main.py:4: {message}"


def test_a_refused_statement_is_complained_about_only_once() -> None:
    body = """
        for image in ():
            model = 3
        a = b = 3
        score = Score().execute(model, a)
        again = Score().execute(score, image)
        """

    assert len(complaints(pipeline(body))) == 2


def test_all_findings_come_at_once_and_sorted() -> None:
    body = "x = 3\nx.y = 4\nTrian().execute()"
    files = pipeline(body) | {"operations/load.py": b"class Load:\n    pass\n"}

    assert complaints(files) == [
        "operations/load.py:1: the file has no class with an `execute` method",
        "pipelines/main.py:3: a name is bound to a constant, not to a call",
        "pipelines/main.py:4: an attribute of an object as a target",
        "pipelines/main.py:5: there is no name `Trian`",
    ]


@pytest.mark.parametrize(
    "around",
    [
        "x = 3",
        "print('hello')",
        "class Helper: pass",
        "__all__ = ['main']",
        "try:\n    import numpy\nexcept ImportError:\n    pass",
        "if 1 == 1:\n    pass",
        "if __name__ == '__main__':\n    pass\nelse:\n    pass",
        "if '__main__' != __name__:\n    pass",
        "raise SystemExit('a pipeline is never run by reading it')",
    ],
)
def test_little_may_stand_beside_the_function(around: str) -> None:
    files = project(pipelines__main=f"import this\n{around}\ndef main():\n    pass\n")

    [found] = complaints(files)

    assert found.startswith("pipelines/main.py:2: ")
    assert found.endswith("does not belong in a pipeline file")


def test_docstring_imports_and_a_guard_may() -> None:
    text = '''
        """What it does."""
        from __future__ import annotations
        import typing
        from collections.abc import Sequence as Many
        from operations.load import Load as Read

        def main(size: Many[int] = (3,)) -> typing.Any:
            """Also said here."""
            images, _ = Read().execute()
            return images

        if __name__ == "__main__":
            for _ in range(3):
                print(main())
        '''

    graph = read_pipeline(project(pipelines__main=text))

    assert graph.docstring == "Also said here."
    assert [node.operation.name for node in graph.nodes] == ["Load"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file has no function `main`"),
        ("def other(): pass", "1: the function is called `other` and its file `main`"),
        ("async def main(): pass", "1: `main` is `async`"),
        ("import x\n@x.y\ndef main(): pass", "2: a decorator on a pipeline"),
        ("def main(): pass\ndef more(): pass", "2: a second function, `more`: one pipeline a file"),
        (
            "def main(): pass\ndef _x(): pass",
            "2: `_x` is a helper function; a pipeline file has none",
        ),
        ("def main(*all): pass", "1: `*all` is not a parameter that can be given at launch"),
        ("def main(**all): pass", "1: `**all` is not a parameter that can be given at launch"),
        ("def main(a, /): pass", "1: parameters by position only"),
        ("def main(_): pass", "1: a parameter named `_` cannot be used"),
        ("def main(a=print): pass", "1: the default of `a` is not a literal"),
        ("def main(a=1e999): pass", "1: the default of `a` is not a literal"),
        ("def main(a: int = 'x'): pass", "1: `a` of `main` takes int, not 'x'"),
        (
            "from x import main\ndef main(): pass",
            "2: `main` is bound again; it was bound on line 1",
        ),
    ],
)  # fmt: skip
def test_one_plain_public_function_of_the_file_s_name(text: str, message: str) -> None:
    assert complaints(project(pipelines__main=text)) == [f"pipelines/main.py:{message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from operations import load", "`load` is imported as a module"),
        ("from operations.load import *", "`import *` hides what is imported"),
        ("from .other import other", "a relative import hides what is imported"),
        ("from operations.lod import Load", "the project has no file operations/lod.py"),
        ("from operations.load import Lood", "operations/load.py has no operation `Lood`"),
        ("from resources.vgg import vg", "resources/vgg.py has no resource `vg`"),
        ("from resources.net import net", "the project has no file resources/net.py"),
        ("from pipelines.other import other", "the project has no file pipelines/other.py"),
    ],
)
def test_imports_must_be_of_something_in_the_project(line: str, message: str) -> None:
    files = project(pipelines__main=f"{line}\ndef main():\n    pass\n")

    assert complaints(files) == [f"pipelines/main.py:1: {message}"]


def test_other_imports_serve_annotations_and_nothing_else() -> None:
    text = "import numpy as np\nfrom utils.x import help\ndef main(a: np.ndarray = None):\n    {}\n"

    assert complaints(project(pipelines__main=text.format("pass"))) == []
    assert complaints(project(pipelines__main=text.format("help()"))) == [
        "pipelines/main.py:4: `help` comes from `utils.x`, which is not part of a pipeline"
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "a, b = Load().execute()\na, c = Load().execute()",
            "4: `a` is bound again; it was bound on line 3",
        ),
        ("p, b = Load().execute()", "3: `p` is bound again; it was bound on line 2"),
        ("Load, b = Load().execute()", "3: `Load` is bound again; it was bound on line 1"),
        (
            "Plot().execute(model)\nmodel = Score().execute(p, p)",
            "3: `model` is used before it is made, on line 4",
        ),
        (
            "a = Score().execute(b, p)\nb = Score().execute(a, p)",
            "3: `b` is used before it is made, on line 4",
        ),
        ("a = Score().execute(a, p)", "3: `a` is used before it is made, on line 3"),
        ("Plot().execute(q)", "3: there is no name `q`"),
        ("_, b = Load().execute()\nPlot().execute(_)", "4: `_` is not kept"),
        ("Plot().execute(Load)", "3: `Load` is imported; it is neither a parameter nor an output"),
        ("a, b = Load().execute()\na().execute(b)", "4: `a` is an output, and is called"),
        ("p()", "3: `p` is a parameter, and is called"),
    ],
)
def test_names_bind_once_and_before_they_are_used(body: str, message: str) -> None:
    assert complaint(body, "p=None") == message


def test_underscore_may_be_bound_again() -> None:
    graph = graph_of("_, a = Load().execute()\n_, _ = Load().execute()\n_ = Score().execute(a, a)")

    assert [node.name for node in graph.nodes] == ["a", "Load", "Score"]


def test_a_target_may_have_the_name_of_its_pipeline() -> None:
    graph = graph_of("main = Score().execute(None, None)\nreturn main")

    assert [result.name for result in graph.results] == ["main"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a, b = Load().execute()\nreturn a\npass", "5: nothing may follow `return`"),
        ("return Load().execute()", "3: `return` gives a call"),
        ("a, b = Load().execute()\nreturn [a, b]", "4: `return` gives a list"),
        ("a, b = Load().execute()\nreturn a, 3", "4: `return` gives a constant"),
        ("a, b = Load().execute()\nreturn a, a", "4: two outputs of one name: `a`"),
        ("return p", "3: `return` gives the parameter `p`"),
        ("return q", "3: there is no name `q`"),
        ("return {**p}", "3: `return` gives a dictionary"),
    ],
)
def test_the_return_gives_names_of_outputs_and_is_last(body: str, message: str) -> None:
    assert complaint(body, "p=None") == message


@pytest.mark.parametrize("ending", ["", "return", "return None"])
def test_a_pipeline_may_return_nothing(ending: str) -> None:
    assert graph_of(f"Load().execute()\n{ending}").results == ()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("hidden=1 + 1", "an expression is passed: it is not a Python literal"),
        ("hidden=f'{1}'", "an f-string is passed: it is not a Python literal"),
        ("hidden=[x for x in ()]", "a comprehension is passed: it is not a Python literal"),
        ("hidden=p.size", "an attribute of an object is passed: it is not a Python literal"),
        (
            "hidden=1 if p else 2",
            "a condition (`a if b else c`) is passed: it is not a Python literal",
        ),
        ("hidden=1e999", "a constant is passed: NaN and infinity cannot be attributes"),
        ("hidden=...", "a constant is passed: ellipsis is not a Python literal"),
        ("hidden=float('nan')", "`float` is Python's own, and not part of a pipeline"),
        ("hidden=[a]", "a list is passed: it is not a Python literal"),
        ("hidden=a", "`a` is an output, used as an attribute"),
        ("hidden=Load", "`Load` is imported; it is neither a parameter nor an output"),
        ("vgg", "the resource `vgg` is not called"),
        ("vgg(depth=vgg())", "a call is passed: it is not a Python literal"),
        ("vgg(depth=a)", "`a` is an output, used as an attribute"),
        ("Load()", "the call of `Load` is passed as an attribute"),
        ("*p", "`*` hides what is passed"),
        ("**p", "`**` hides what is passed"),
    ],
)
def test_attributes_are_literals_parameters_and_resources(argument: str, message: str) -> None:
    body = f"a, b = Load().execute()\nTrain({argument}).execute(a, b)"

    assert complaint(body, "p=3").startswith(f"4: {message}")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("3", "a constant is passed as an input"),
        ("'text'", "a constant is passed as an input"),
        ("a[0]", "an item of an object is passed as an input"),
        ("Load().execute()", "a call is passed as an input"),
        ("[a, b]", "a list is passed as an input"),
        ("*a", "`*` hides what is passed"),
        ("**a", "`**` hides what is passed"),
    ],
)
def test_inputs_are_names_or_none(argument: str, message: str) -> None:
    body = f"a, b = Load().execute()\nTrain().execute(a, b)\nJoin(',').execute({argument})"

    assert complaint(body) == f"5: {message}"


def test_hints_say_what_is_allowed_or_meant() -> None:
    with pytest.raises(InvalidProject) as raised:
        read_pipeline(pipeline("Trian().execute()\nLoad().execute()\nif 1: pass"))

    assert raised.value.message == "pipelines/main.py:3: there is no name `Trian` (and 1 more)"
    assert raised.value.hint == "did you mean `Train`?"
    assert "`return` at its end" in raised.value.findings[1]["hint"]
