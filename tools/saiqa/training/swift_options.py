"""The options of ``swift sft``, read from the source of its argument classes, because importing them takes ten seconds.

ms-swift's parser turns the fields of its argument dataclasses into flags; all classes in the files defining them are read.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from saiqa.errors import UsageError
from saiqa.training.options import FALSE, TRUE

# The first source that has a field defines its type.
_SOURCES = {
    "swift": (
        *("arguments/sft_args.py", "arguments/tuner_args.py", "trainers/arguments.py", "arguments/base_args/*.py"),
        "ray_utils/arguments.py",
    ),
    "transformers": ("training_args.py", "training_args_seq2seq.py"),
}
_NUMBERS = {"int": int, "float": float}


def check(options: Mapping[str, Sequence[str]]) -> None:
    """Refuse what ``swift sft`` would refuse: unknown options, and values of another type.

    Anything that the source does not tell (ms-swift is not installed, or defines its options differently) is not checked.

    Raises:
        UsageError: the first wrong option, with similar names.
    """
    fields = known()
    if not fields:
        return
    for name, values in options.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 3)
            remedy = f"Did you mean {' or '.join(f'--{one}' for one in near)}?" if near else "See --help, and ms-swift's"
            raise UsageError(f"swift sft has no option --{name}", remedy)
        _check_values(name, values, fields[name])


def known() -> dict[str, ast.expr]:
    """Option -> its annotation; empty if ms-swift's source is not available."""
    found: dict[str, ast.expr] = {}
    for one in (one for path in _files() for one in ast.parse(path.read_bytes()).body if isinstance(one, ast.ClassDef)):
        for field in one.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found.setdefault(field.target.id, field.annotation)
    return found


def _files() -> Iterator[Path]:
    for package, patterns in _SOURCES.items():
        spec = importlib.util.find_spec(package)  # finds a package without importing it
        if spec is not None and spec.origin:
            for pattern in patterns:
                yield from sorted(Path(spec.origin).parent.glob(pattern))


def _check_values(name: str, values: Sequence[str], annotation: ast.expr) -> None:
    kinds = _kinds(annotation)
    given = " ".join(values)
    if not values and kinds != {"bool"}:
        raise UsageError(f"--{name} has no value", "Give one after it")
    choices = _choices(annotation)
    if choices and kinds <= {"Literal"} and any(value not in choices for value in values):
        raise UsageError(f"--{name} {given} is not one of {', '.join(sorted(choices))}", "Give one of them")
    if kinds == {"bool"} and any(value.lower() not in (*TRUE, *FALSE) for value in values):
        raise UsageError(f"--{name} {given} is neither true nor false", "Give one of the two")
    if kinds and kinds <= _NUMBERS.keys():
        kind = "float" if "float" in kinds else "int"
        try:
            list(map(_NUMBERS[kind], values))
        except ValueError:
            raise UsageError(f"--{name} {given} is not a {'whole ' * (kind == 'int')}number", "Give one") from None


def _kinds(annotation: ast.expr) -> set[str]:
    """The types in an annotation, without ``Optional`` and ``None``: the kinds of value it allows."""
    if isinstance(annotation, ast.Constant):
        return _kinds(ast.parse(annotation.value, mode="eval").body) if isinstance(annotation.value, str) else set()
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value).rpartition(".")[2]
        if outer in ("Optional", "Union"):
            return _kinds(annotation.slice)
        return {outer}
    if isinstance(annotation, ast.Tuple):
        return set().union(*map(_kinds, annotation.elts))
    if isinstance(annotation, ast.BinOp):
        return _kinds(annotation.left) | _kinds(annotation.right)
    return {ast.unparse(annotation).rpartition(".")[2]} - {"None"}


def _choices(annotation: ast.expr) -> set[str]:
    """The values of a ``Literal`` in an annotation, as text."""
    literals = [
        node for node in ast.walk(annotation) if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal")
    ]
    return {str(one.value) for literal in literals for one in ast.walk(literal.slice) if isinstance(one, ast.Constant)}
