"""Every error pickles with all it carries, and the tree drawn in the docstring is the real one."""

from __future__ import annotations

import pickle
import re
import traceback

import pytest

from ingest import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]

_LINE = re.compile(r"^    (?P<bars>[| ]*)(?:\+-- )?(?P<name>[A-Z]\w+)(?: \((?P<also>\w+)\))?(?:  .*)?$")


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Return name -> (parent, builtin) as the module's docstring draws it."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["bars"]) // 4 + ("+--" in line)
        path[depth:] = [match["name"]]
        tree[match["name"]] = (path[depth - 1] if depth else None, match["also"])
    return tree


def test_the_docstring_draws_the_real_tree() -> None:
    drawn = drawn_tree()
    assert sorted(drawn) == sorted(errors.__all__)
    for name, (parent, also) in drawn.items():
        real = [base.__name__ for base in getattr(errors, name).__bases__]
        expected = [base for base in (parent, also) if base]
        assert real == (expected or ["Exception"]), name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_pickles_with_its_attributes(cls: type[errors.IngestError]) -> None:
    error = cls("what was asked", hint="do this")
    for name in ("status", "data_id"):
        if hasattr(cls, name):
            setattr(error, name, 422 if name == "status" else "s1")
    error.anything = ("else", 1)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is cls
        assert str(copy) == "what was asked"
        assert copy.__dict__ == error.__dict__
        assert traceback.format_exception_only(copy)[-1] == "hint: do this\n"
        assert copy.hint == "do this"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_needs_a_message_only(cls: type[errors.IngestError]) -> None:
    error = cls("why")
    assert str(error) == "why"
    assert error.args == ("why",)
    assert error.hint is None
    assert isinstance(pickle.loads(pickle.dumps(error)), cls)


def test_takes_status_and_data_id_where_they_belong() -> None:
    for cls in CLASSES:
        if issubclass(cls, errors.RefusedError):
            assert pickle.loads(pickle.dumps(cls("no", status=403, hint="h"))).status == 403
    assert pickle.loads(pickle.dumps(errors.LinkError("no", data_id="s1"))).data_id == "s1"
