"""Does every call fit what it calls: attributes, inputs, targets, types, and each parameter's role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deepforge.pipelines.annotation import fits
from deepforge.pipelines.draft import Draft, Step
from deepforge.pipelines.finding import Findings, listed, suggest
from deepforge.pipelines.graph import (
    LiteralText,
    Parameter,
    ParameterValue,
    ResourceCall,
    Role,
    Value,
)
from deepforge.pipelines.literal import read_literal
from deepforge.pipelines.operation import OperationInterface
from deepforge.pipelines.resource import ResourceInterface
from deepforge.pipelines.signature import Attribute
from deepforge.pipelines.values import Argument, Arguments, Callee, NameUse, ResourceUse
from deepforge.pipelines.wiring import OperationCall, PipelineCall, Wire, Wiring

LARGEST_GRAPH = 10_000
"""Operations in one pipeline, nested ones counted each time they are called."""


class Project(Protocol):
    """Where the check finds what is called. None: it cannot be read, and a finding says why."""

    def operation(self, callee: Callee, findings: Findings) -> OperationInterface | None: ...
    def resource(self, callee: Callee, findings: Findings) -> ResourceInterface | None: ...
    def pipeline(self, callee: Callee, findings: Findings) -> Wiring | None: ...


def check(draft: Draft, project: Project, findings: Findings) -> Wiring:
    """Check a pipeline. What is returned can be unfolded if there were no findings at all."""
    return _Check(draft, project, findings).run()


@dataclass(frozen=True)
class _Slot:
    """One thing that can be given in a call."""

    name: str
    required: bool
    keyword_only: bool = False


class _Check:
    def __init__(self, draft: Draft, project: Project, findings: Findings) -> None:
        self._draft = draft
        self._project = project
        self._findings = findings
        self._defaults = {one.name: one.default for one in draft.parameters}
        self._roles: dict[str, tuple[Role, int]] = {}
        self._identities: dict[str, tuple[int, bool]] = {}
        self._unnamed: dict[str, int] = {}
        self._size = 0

    def run(self) -> Wiring:
        calls = [self._call(step) for step in self._draft.steps]
        return Wiring(
            name=self._draft.name,
            file=self._draft.file,
            docstring=self._draft.docstring,
            parameters=tuple(self._parameter(one) for one in self._draft.parameters),
            calls=tuple(one for one in calls if one is not None),
            returns=tuple(use.name for use in self._draft.returns),
            size=self._size,
        )

    def _call(self, step: Step) -> OperationCall | PipelineCall | None:
        if step.attributes is None:
            return self._pipeline_call(step)
        operation = self._project.operation(step.callee, self._findings)
        if operation is None:
            self._use_blindly(step.attributes, "attribute")
            self._use_blindly(step.inputs, "input")
            return None
        self._grow(1, step.line)
        self._match_targets(step, operation.name, operation.outputs)
        arguments = self._attributes(step.attributes, operation)
        return OperationCall(
            name=self._identity(step, operation.name),
            targets=step.targets,
            line=step.line,
            operation=operation,
            arguments=arguments,
            wires=self._wires(step.inputs, operation),
        )

    def _attributes(self, given: Arguments, operation: OperationInterface) -> dict[str, Value]:
        known = {one.name: one for one in operation.attributes}
        slots = [_Slot(one.name, one.required, one.keyword_only) for one in known.values()]
        bound = self._bind(given, slots, operation.name, "attribute")
        return {
            name: value
            for name in known
            if (value := self._value(bound.get(name), known[name], operation.name, given.line))
            is not None
        }

    def _value(
        self, argument: Argument | None, wanted: Attribute, owner: str, line: int
    ) -> Value | None:
        if isinstance(argument, LiteralText):
            self._match_type(argument.text, wanted, owner, line)
            return argument
        if isinstance(argument, NameUse):
            self._use(argument, "attribute")
            default = self._defaults[argument.name]
            if default not in (None, "None"):
                self._match_type(default, wanted, owner, argument.line)
            return ParameterValue(argument.name)
        if isinstance(argument, ResourceUse):
            return self._resource(argument)
        return None

    def _resource(self, use: ResourceUse) -> ResourceCall | None:
        resource = self._project.resource(use.callee, self._findings)
        if resource is None:
            self._use_blindly(use.arguments, "attribute")
            return None
        known = {one.name: one for one in resource.arguments}
        slots = [_Slot(one.name, one.required, one.keyword_only) for one in known.values()]
        bound = self._bind(use.arguments, slots, resource.name, "argument")
        arguments: dict[str, LiteralText | ParameterValue] = {}
        for name in known:
            value = self._value(bound.get(name), known[name], resource.name, use.line)
            if isinstance(value, (LiteralText, ParameterValue)):
                arguments[name] = value
        return ResourceCall(resource.module, resource.name, resource.file, arguments)

    def _wires(self, given: Arguments, operation: OperationInterface) -> tuple[Wire, ...]:
        parts: Sequence[Argument] = ()
        if operation.variadic is not None:
            parts = given.positional
            given = Arguments((), given.named, given.line)
        slots = [_Slot(one.name, not one.optional, one.keyword_only) for one in operation.inputs]
        bound = self._bind(given, slots, f"{operation.name}.execute", "input")
        wires = [
            Wire(slot.name, self._local(bound[slot.name])) for slot in slots if slot.name in bound
        ]
        wires += [
            Wire(operation.variadic or "", self._local(part), position)
            for position, part in enumerate(parts)
        ]
        return tuple(wires)

    def _local(self, argument: Argument) -> str | None:
        if isinstance(argument, NameUse):
            self._use(argument, "input")
            return argument.name
        return None

    def _pipeline_call(self, step: Step) -> PipelineCall | None:
        pipeline = self._project.pipeline(step.callee, self._findings)
        if pipeline is None:
            return None
        self._grow(max(1, pipeline.size), step.line)  # an empty one costs time too
        self._match_targets(step, pipeline.name, pipeline.returns)
        known = {one.name: one for one in pipeline.parameters}
        slots = [_Slot(one.name, one.default is None) for one in known.values()]
        bound = self._bind(step.inputs, slots, pipeline.name, "parameter")
        arguments: dict[str, LiteralText | str] = {}
        for name, argument in bound.items():
            value = self._passed(argument, known[name], pipeline.name, step.line)
            if value is not None:
                arguments[name] = value
        return PipelineCall(
            name=self._identity(step, pipeline.name),
            targets=step.targets,
            line=step.line,
            pipeline=pipeline,
            arguments=arguments,
        )

    def _passed(
        self, argument: Argument, parameter: Parameter, owner: str, line: int
    ) -> LiteralText | str | None:
        what = f"`{parameter.name}` of `{owner}`"
        if isinstance(argument, LiteralText):
            if parameter.role == "input" and argument.text != "None":
                self._findings.add(
                    line,
                    f"{what} takes an artifact, not {argument.text}",
                    "pass a parameter, an earlier output, or None",
                )
            elif parameter.role != "input":
                wanted = Attribute(
                    parameter.name, parameter.annotation, parameter.default, required=False
                )
                self._match_type(argument.text, wanted, owner, line)
            return argument
        if not isinstance(argument, NameUse):
            return None
        if parameter.role == "attribute" and argument.kind == "output":
            self._findings.add(
                argument.line,
                f"{what} takes a value, and `{argument.name}` is an output",
                "pass a literal or a parameter",
            )
        if parameter.role != "unused":
            self._use(argument, parameter.role)
        return argument.name

    def _bind(
        self, given: Arguments, slots: Sequence[_Slot], owner: str, kind: str
    ) -> dict[str, Argument]:
        """Match what is given with what can be, as Python would."""
        bound: dict[str, Argument] = {}
        by_position = [slot.name for slot in slots if not slot.keyword_only]
        if len(given.positional) > len(by_position):
            self._findings.add(
                given.line,
                f"`{owner}` is given {len(given.positional)} {kind}s by position "
                f"and takes {len(by_position)}",
                _takes(slots),
            )
        bound.update(zip(by_position, given.positional, strict=False))
        known = {slot.name for slot in slots}
        for name, argument in given.named:
            if name not in known:
                self._findings.add(
                    given.line,
                    f"`{owner}` has no {kind} `{name}`",
                    suggest(name, known, otherwise=_takes(slots)),
                )
            elif name in bound:
                self._findings.add(given.line, f"`{owner}` is given `{name}` twice")
            else:
                bound[name] = argument
        missing = [slot.name for slot in slots if slot.required and slot.name not in bound]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            self._findings.add(
                given.line,
                f"`{owner}` is missing the {kind}{plural} {listed(missing)}",
                "pass None to leave an input unconnected" if kind == "input" else _takes(slots),
            )
        return bound

    def _match_targets(self, step: Step, owner: str, outputs: Sequence[str]) -> None:
        if not step.targets or len(step.targets) == len(outputs):
            return
        gives = f"{len(outputs)} ({', '.join(outputs)})" if outputs else "none"
        self._findings.add(
            step.line,
            f"{len(step.targets)} targets for the outputs of `{owner}`, which gives {gives}",
            "write one name for each output, `_` for one that is not needed"
            if outputs
            else "write the call without a target",
        )

    def _match_type(self, text: str | None, wanted: Attribute, owner: str, line: int) -> None:
        if text is None or wanted.annotation is None or text == wanted.default == "None":
            return
        if not fits(read_literal(text), wanted.annotation):
            self._findings.add(
                line, f"`{wanted.name}` of `{owner}` takes {wanted.annotation}, not {text}"
            )

    def _use_blindly(self, given: Arguments, role: Role) -> None:
        """Note what parameters are used for in a call that cannot be checked."""
        for argument in (*given.positional, *(one for _, one in given.named)):
            if isinstance(argument, NameUse):
                self._use(argument, role)

    def _use(self, use: NameUse, role: Role) -> None:
        if use.kind != "parameter":
            return
        first, line = self._roles.setdefault(use.name, (role, use.line))
        if first != role:
            self._findings.add(
                use.line,
                f"the parameter `{use.name}` is used as an {role} here "
                f"and as an {first} on line {line}",
                "an input takes an artifact, an attribute a value: make two parameters",
            )

    def _parameter(self, one: Attribute) -> Parameter:
        role = self._roles.get(one.name, ("unused", 0))[0]
        line = self._draft.parameter_lines[one.name]
        if role == "input" and one.default not in (None, "None"):
            self._findings.add(
                line,
                f"`{one.name}` takes an artifact; its default cannot be {one.default}",
                "its default is None or nothing; deepforge.toml names default artifacts",
            )
        elif role != "input" and one.default not in (None, "None"):
            self._match_type(one.default, one, self._draft.name, line)
        return Parameter(one.name, role, one.annotation, one.default, line)

    def _identity(self, step: Step, name: str) -> str:
        """Name a call after its first target other than `_`, else after what it calls."""
        identity = next((one for one in step.targets if one != "_"), None)
        bound = identity is not None
        if identity is None:
            number = self._unnamed[name] = self._unnamed.get(name, 0) + 1
            identity = name if number == 1 else f"{name}_{number}"
        line, other_bound = self._identities.setdefault(identity, (step.line, bound))
        if bound != other_bound:  # two targets of one name are complained about as such
            self._findings.add(
                step.line,
                f"two steps are called `{identity}`; the other is on line {line}",
                "bind an output of one of them to another name",
            )
        return identity

    def _grow(self, size: int, line: int) -> None:
        before, self._size = self._size, self._size + size
        if before <= LARGEST_GRAPH < self._size:
            self._findings.add(
                line, f"the pipeline has more than {LARGEST_GRAPH} operations", "do more in each"
            )


def _takes(slots: Iterable[_Slot]) -> str:
    names = [slot.name for slot in slots]
    return f"it takes {listed(names)}" if names else "it takes none"
