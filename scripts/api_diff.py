"""Lists what changed in the public API since a revision, and whether it breaks callers.

    python scripts/api_diff.py                     # since the last tag, or HEAD~1 without tags
    python scripts/api_diff.py v0.1.0              # since any revision
    python scripts/api_diff.py --fail-on-breaking  # exits with 1 if a change breaks callers

The public API is what `intercom_data_events` and its modules list in `__all__`. Names of the
generated package can change in any release, except those that `intercom_data_events` lists. griffe
reads the sources without importing them. It also judges what breaks callers: a removed name, and a
parameter that was removed, moved, made required or given another default. A changed type may break
callers; griffe leaves types to type checkers.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

try:
    import attrs
    import griffe
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    missing = "griffelib" if error.name == "griffe" else error.name
    sys.exit(f"api-diff: {missing} must be installed; run: nox -s api-diff")

from client_parts import ArgumentParser, sentence

#: The package that the report covers.
PUBLIC = "intercom_data_events"
#: That package and the one that it imports names from, each with its source root.
PACKAGES = {PUBLIC: "overlays", "intercom_data_events_api": "generated"}
#: The modules of the operations, which are public in the generated package without `__all__`.
_OPERATIONS = "intercom_data_events_api.api"
_ATTRS = {"attrs.define", "attrs.frozen"}
_CALLABLES = {"collections.abc.Callable", "typing.Callable"}
_AWAITABLES = {
    f"{module}.{name}"
    for module in ("collections.abc", "typing")
    for name in ("Awaitable", "Coroutine")
}

Verdict = Literal["yes", "maybe", "no"]


@attrs.frozen
class Surface:
    """The names that callers can use, and their signatures.

    Attributes:
        packages: The packages that exist, as griffe read them.
        facts: The kind, type or signature of each public name. A parameter's name is in brackets
            after its function.
        names: The public names of each definition, by its path.
    """

    packages: dict[str, griffe.Object | griffe.Alias]
    facts: dict[str, str]
    names: dict[str, set[str]]


@attrs.frozen
class Change:
    """A change of a public name.

    Attributes:
        name: The name; a parameter's name is in brackets after its function.
        text: What changed.
        breaks: Whether the change breaks callers; "maybe" if only a type changed.
    """

    name: str
    text: str
    breaks: Verdict


class APIDiffError(Exception):
    """A comparison failed. The message is one sentence that says why."""


def read(project: Path, packages: Sequence[str] = tuple(PACKAGES)) -> Surface:
    """Reads the public surface of a project's package.

    Args:
        project: The project's folder.
        packages: The package, followed by those that it imports names from. Missing ones are
            ignored.

    Raises:
        APIDiffError: A public module does not parse, or lists a name that it lacks.
    """
    loader = griffe.GriffeLoader(
        search_paths=[project / PACKAGES[package] for package in packages], allow_inspection=False
    )
    found = {}
    for package in packages:
        if (project / PACKAGES[package] / package / "__init__.py").exists():
            try:
                with griffe.logger.disable():  # griffe would also log the error that it raises.
                    found[package] = loader.load(package)
            except griffe.LoadingError as error:
                raise APIDiffError(f"{package}: {error}") from error
    loader.resolve_aliases(external=False)
    surface = Surface(found, {}, {})
    for package in found.values():
        _make_inits(package)
        _make_methods(package, loader.modules_collection)
        _hide_modules(package)
    for name in packages[:1]:
        if name in found:
            _describe(found[name], name, surface)
    return surface


def compare(before: Surface, after: Surface) -> list[Change]:
    """Returns the changes between two surfaces, except the members of new or removed names."""
    reasons = _reasons(before, after)
    changes = []
    for name in sorted(before.facts.keys() | after.facts.keys()):
        old, new = before.facts.get(name), after.facts.get(name)
        owner = re.sub(r"^\w+$|(\.\w+|\(\w+\))$", "", name)
        if new is None:
            if owner in after.facts or owner not in before.facts:
                # The function's **kwargs may still take a removed parameter.
                breaks = name in reasons or not name.endswith(")")
                changes.append(Change(name, "removed", "yes" if breaks else "maybe"))
        elif old is None:
            if owner in before.facts or owner not in after.facts:
                text = ": ".join([*reasons.get(name, ["added"]), new])
                changes.append(Change(name, text, "yes" if name in reasons else "no"))
        elif name in reasons or old != new:
            said = [*reasons.get(name, ()), *([_became(old, new)] if old != new else [])]
            changes.append(Change(name, ": ".join(said), "yes" if name in reasons else "maybe"))
    return changes


def table(changes: list[Change]) -> list[str]:
    """Returns the changes as the lines of a table with a heading and a total."""
    if not changes:
        return ["Nothing changed."]
    width = max(len(change.name) for change in changes)
    lines = [f"{'breaks':6}  {'name':{width}}  change"]
    lines += [f"{change.breaks:6}  {change.name:{width}}  {change.text}" for change in changes]
    verdicts = [change.breaks for change in changes]
    lines.append(
        f"Changes: {len(changes)}; break callers: {verdicts.count('yes')}; "
        f"may break them: {verdicts.count('maybe')}."
    )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    project = options.project.absolute()
    if not project.is_dir():
        parser.error(f"--project must be a folder, not {options.project}")
    if options.revision == "":
        parser.error("REV must be a tag, a branch or a commit, not ''; omit it to use the last tag")
    try:
        revision = _last_release(project) if options.revision is None else options.revision
        commit = _commit(project, revision)
        after = _working_tree(project)
        with tempfile.TemporaryDirectory() as folder:
            _extract(project, commit, Path(folder))
            before = read(Path(folder))
        changes = compare(before, after)
    except APIDiffError as error:
        print(f"api-diff: {sentence(str(error))}", file=sys.stderr)
        return 2
    print(f"{PUBLIC}: {revision} ({commit}) → the working tree")
    print("\n".join(table(changes)))
    return int(options.fail_on_breaking and any(change.breaks == "yes" for change in changes))


def _became(old: str, new: str) -> str:
    if not (old.startswith("Literal[") and new.startswith("Literal[")):
        return f"{old} → {new}"
    # A long enumeration as a whole would hide the change.
    were, are = old[8:-1].split(", "), new[8:-1].split(", ")
    signed = [f"- {value}" for value in were if value not in are]
    signed += [f"+ {value}" for value in are if value not in were]
    return f"Literal: {', '.join(signed) or 'another order'}"


def _hide_modules(module: griffe.Object | griffe.Alias) -> None:
    """Tells griffe which modules are private; by default, it treats all as public."""
    for member in module.modules.values():
        if not member.is_alias:
            listed = member.exports is not None and not member.name.startswith("_")
            member.public = listed or f"{member.path}.".startswith(f"{_OPERATIONS}.")
            _hide_modules(member)


def _make_inits(module: griffe.Object | griffe.Alias) -> None:
    """Gives attrs classes the `__init__` that attrs makes, because no source contains it."""
    for member in module.members.values():
        if member.is_alias:
            continue
        if member.is_module:
            _make_inits(member)
        elif member.is_class and "__init__" not in member.members:
            for decorator in member.decorators:
                options = _options(decorator.value, _ATTRS)
                if options is not None and options.get("init") != "False":
                    init = griffe.Function(
                        "__init__",
                        parameters=griffe.Parameters(*_fields(member, options)),
                        parent=member,
                    )
                    init.labels.add("attrs")
                    member.set_member("__init__", init)


def _fields(made: griffe.Class, options: dict[str, str]) -> Iterator[griffe.Parameter]:
    """Yields the fields of an attrs class as parameters of its `__init__`, in order."""
    for field in made.all_members.values():
        if not field.is_attribute or field.annotation is None or "property" in field.labels:
            continue
        if "instance-attribute" not in field.labels:  # A ClassVar is not a field.
            continue
        own = _options(field.value, {"attrs.field"})
        said = own or {}
        if said.get("init") == "False":
            continue
        keyword_only = "True" in (options.get("kw_only"), said.get("kw_only"))
        yield griffe.Parameter(
            said.get("alias", field.name.lstrip("_")).strip("'\""),
            annotation=field.annotation,
            kind=griffe.ParameterKind.keyword_only
            if keyword_only
            else griffe.ParameterKind.positional_or_keyword,
            default=field.value if own is None else said.get("default", said.get("factory")),
        )


def _options(value: str | griffe.Expr | None, functions: set[str]) -> dict[str, str] | None:
    """Returns the keyword arguments if `value` calls or names one of these functions, else None."""
    if not isinstance(value, griffe.Expr) or value.canonical_path not in functions:
        return None
    arguments = value.arguments if isinstance(value, griffe.ExprCall) else ()
    return {
        each.name: str(each.value) for each in arguments if isinstance(each, griffe.ExprKeyword)
    }


def _make_methods(thing: griffe.Object | griffe.Alias, modules: griffe.ModulesCollection) -> None:
    """Replaces class attributes that are decorated functions, `a = verb(f)`, with methods."""
    for member in list(thing.members.values()):
        if member.is_alias:
            continue
        if member.is_module or member.is_class:
            _make_methods(member, modules)
        elif thing.is_class and member.is_attribute:
            method = _made(member, member.value, modules)
            if method is not None:
                thing.set_member(member.name, method)


def _made(
    attribute: griffe.Attribute, value: str | griffe.Expr | None, modules: griffe.ModulesCollection
) -> griffe.Function | None:
    """Returns the method that a decorator makes, or several: `a(b(f))`."""
    if not isinstance(value, griffe.ExprCall):
        return None
    decorator = _function(value, modules)
    argument = next(iter(value.arguments), None)
    inner = _made(attribute, argument, modules)
    decorated = inner or _function(argument, modules)
    if decorator is None or decorated is None:
        return None
    method = _method(attribute, decorator, decorated)
    if method is not None and inner is not None:
        method.labels |= inner.labels
    return method


def _method(
    attribute: griffe.Attribute, decorator: griffe.Function, decorated: griffe.Function
) -> griffe.Function | None:
    """Returns the method that a decorator returns by its annotations; None if not a function."""
    taken = _callable(next((each.annotation for each in decorator.parameters), None))
    made = _callable(decorator.returns)
    if taken is None or made is None:
        return None
    (takes, before), (adds, after) = taken, made
    # One parameter is `self`: the one that the decorator adds, or the function's first.
    parameters = list(decorated.parameters)[takes + (adds == 0) :]
    method = griffe.Function(
        attribute.name,
        parameters=griffe.Parameters(
            griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
            *(
                griffe.Parameter(
                    each.name, annotation=each.annotation, kind=each.kind, default=each.default
                )
                for each in parameters
            ),
        ),
        parent=attribute.parent,
    )
    if isinstance(after, griffe.ExprSubscript) and after.canonical_path in _AWAITABLES:
        method.labels.add("async")
        after = _elements(after.slice)[-1]
    types = dict(_bound(before, decorated.returns))
    method.returns = re.sub(r"\w+", lambda word: types.get(word[0], word[0]), str(after))
    return method


def _function(
    value: str | griffe.Expr | None, modules: griffe.ModulesCollection
) -> griffe.Function | None:
    """Returns the function of these packages that an expression names or calls, if any."""
    try:
        found = modules[value.canonical_path] if isinstance(value, griffe.Expr) else None
        found = found.final_target if found is not None and found.is_alias else found
    except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
        return None
    return found if isinstance(found, griffe.Function) else None


def _callable(annotation: str | griffe.Expr | None) -> tuple[int, str | griffe.Expr] | None:
    """Returns the number of parameters that a `Callable` adds in front, and its return type."""
    if not isinstance(annotation, griffe.ExprSubscript):
        return None
    if annotation.canonical_path not in _CALLABLES:
        return None
    parameters, returns = _elements(annotation.slice)
    concatenated = isinstance(parameters, griffe.ExprSubscript)
    return len(_elements(parameters.slice)) - 1 if concatenated else 0, returns


def _bound(
    pattern: str | griffe.Expr, given: str | griffe.Expr | None
) -> Iterator[tuple[str, str]]:
    """Yields the type variables of an annotation, each with its value in another annotation."""
    if isinstance(pattern, griffe.ExprSubscript) and isinstance(given, griffe.ExprSubscript):
        if pattern.canonical_path != given.canonical_path:
            return
        for inner, value in zip(_elements(pattern.slice), _elements(given.slice), strict=False):
            yield from _bound(inner, value)
    elif isinstance(pattern, griffe.ExprName) and given is not None:
        yield pattern.name, str(given)


def _elements(subscripted: str | griffe.Expr) -> Sequence[str | griffe.Expr]:
    return subscripted.elements if isinstance(subscripted, griffe.ExprTuple) else [subscripted]


def _describe(thing: griffe.Object | griffe.Alias, name: str, surface: Surface) -> None:
    """Records the facts about a name and its public members."""
    try:
        thing = thing.final_target if thing.is_alias else thing
    except griffe.AliasResolutionError as error:
        if error.alias.target_path.partition(".")[0] in surface.packages:
            raise APIDiffError(
                f"cannot find {error.alias.target_path} for {name}: it is missing, or its module "
                "does not parse"
            ) from error
        surface.facts[name] = "from elsewhere"
        return
    surface.names.setdefault(thing.canonical_path, set()).add(name)
    surface.facts[name] = _fact(thing)
    if thing.is_function:
        for parameter in thing.parameters:
            if parameter.name not in ("self", "cls"):
                surface.facts[f"{name}({parameter.name})"] = _parameter(parameter)
        return
    for member_name, member in thing.all_members.items():
        if not member.is_public or (member.inherited and _is_elsewhere(member, surface)):
            continue
        if member_name != "__init__":
            _describe(member, f"{name}.{member_name}", surface)
            continue
        # Callers call the class, not `__init__`. For an attrs class, its fields are the parameters.
        surface.names.setdefault(member.canonical_path, set()).add(name)
        if "attrs" not in member.labels:
            _describe(member, name, surface)
            surface.facts[name] = _fact(thing)


def _is_elsewhere(member: griffe.Alias, surface: Surface) -> bool:
    """Whether an inherited member is also recorded where it is defined."""
    return member.final_target.parent.canonical_path in surface.names


def _fact(thing: griffe.Object) -> str:
    if isinstance(thing, griffe.Class):
        return f"class({', '.join(map(str, thing.bases))})" if thing.bases else "class"
    if isinstance(thing, griffe.Function):
        labels = sorted(thing.labels & {"async", "classmethod", "staticmethod"})
        return " ".join([*labels, "function", *([f"-> {thing.returns}"] if thing.returns else [])])
    if isinstance(thing, griffe.Attribute):
        alias = thing.annotation is None or str(thing.annotation) == "TypeAlias"
        if alias and "module-attribute" in thing.labels:
            return str(thing.value)
        return str(thing.annotation or "attribute")
    return "module"


def _parameter(parameter: griffe.Parameter) -> str:
    kind = parameter.kind
    usual = kind is None or kind is griffe.ParameterKind.positional_or_keyword
    words = [] if usual else [f"{kind.value},"]
    words.append(str(parameter.annotation or "any"))
    if parameter.default is not None:
        words.append(f"= {parameter.default}")
    return " ".join(words)


def _reasons(before: Surface, after: Surface) -> dict[str, list[str]]:
    """Returns griffe's reasons why changes break callers, by public name."""
    reasons: dict[str, list[str]] = {}
    for package in before.packages.keys() & after.packages.keys():
        for breakage in griffe.find_breaking_changes(
            before.packages[package], after.packages[package]
        ):
            if breakage.kind is griffe.BreakageKind.OBJECT_REMOVED:
                continue  # The facts already show it, by its public name.
            thing, part = breakage.obj, ""
            if "PARAMETER" in breakage.kind.name:
                parameter = (breakage.old_value or breakage.new_value).name
                part = f".{parameter}" if "attrs" in thing.labels else f"({parameter})"
            text = f"{breakage.kind.value[0].lower()}{breakage.kind.value[1:]}"
            for name in after.names.get(thing.canonical_path, ()):
                said = reasons.setdefault(f"{name}{part}", [])
                if text not in said:  # Both packages may have the name.
                    said.append(text)
    return reasons


def _working_tree(project: Path) -> Surface:
    """Reads the current surface; a folder without the package would seem unchanged."""
    surface = read(project)
    if PUBLIC not in surface.packages:
        where = project / PACKAGES[PUBLIC]
        raise APIDiffError(f"{where} has no {PUBLIC}; pass the project's root with --project")
    return surface


def _last_release(project: Path) -> str:
    # `git describe` also fails if there is no tag; only its other failures are errors.
    if not _git(project, "tag", "--merged", "HEAD"):
        return "HEAD~1"
    return _git(project, "describe", "--tags", "--abbrev=0").decode().strip()


def _commit(project: Path, revision: str) -> str:
    """Returns the short name of a revision's commit."""
    _git(project, "rev-parse", "--git-dir")  # From here on, only the revision can be wrong.
    try:
        found = _git(project, "rev-parse", "--short", "--verify", f"{revision}^{{commit}}")
    except APIDiffError as error:
        raise APIDiffError(
            f"REV must be a tag, a branch or a commit of {project}, not {revision}; in a shallow "
            "clone, run: git fetch --tags --unshallow"
        ) from error
    return found.decode().strip()


def _extract(project: Path, commit: str, folder: Path) -> None:
    """Writes a revision's files to a folder; `git worktree` would also change the repository."""
    with tarfile.open(fileobj=io.BytesIO(_git(project, "archive", commit))) as archive:
        archive.extractall(folder, filter="data")


def _git(project: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607  # the git on the user's PATH
            cwd=project,
            env={**os.environ, "LC_ALL": "C"},  # Its messages are read below.
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise APIDiffError("git must be on PATH; install git") from error
    except OSError as error:
        raise APIDiffError(
            f"cannot run git in {project}: {error.strerror}; check the permissions"
        ) from error
    if b"not a git repository" in done.stderr and done.returncode:
        raise APIDiffError(f"{project} must be a git repository; pass one with --project")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise APIDiffError(f"git {' '.join(arguments)}: {said[-1]}")
    return done.stdout


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "revision",
        nargs="?",
        metavar="REV",
        help="the git revision to compare with (default: the last tag, or HEAD~1 without tags)",
    )
    parser.add_argument(
        "--fail-on-breaking", action="store_true", help="exit with 1 if a change breaks callers"
    )
    parser.add_argument(
        "--project",
        type=Path,
        default=Path(__file__).parent.parent,
        metavar="FOLDER",
        help="the project to compare (default: the one that contains this script)",
    )
    return parser


if __name__ == "__main__":
    # A character that the terminal cannot show must not fail the report.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
