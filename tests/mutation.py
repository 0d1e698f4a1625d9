# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutation testing: shows which small changes of plugins/module_utils no unit test notices.

Run it by make mutation ARGS='--sample 300 --seed 1 [_store _files ...]'. The changes are those of cosmic-ray, of which
only those are taken that would be a mistake somebody makes, and four more. Each is made in a process of its own while
the module is imported, no file is changed, and that process runs the tests that come through the changed line, as
coverage knows them, until one fails. With --own it runs those in the files with the name of the module, for which
nothing has to be measured first. All this happens where code that went astray can do no harm: in a PID namespace of its
own, with everything read-only but a /tmp of its own.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import time
import typing as t
from importlib.machinery import SourceFileLoader
from pathlib import Path

import coverage
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "plugins" / "module_utils"
COVERAGE = "/tmp/coverage"

#: Options of pytest: none of them makes a test depend on another run, or writes into the checkout.
PYTEST = ("-q", "-o", "cache_dir=/tmp/pytest")

#: What takes long to import and is none of ours: imported once, not by each process.
FOREIGN = ("ansible.module_utils.testing", "ansible.plugins.action", "hypothesis.strategies", "xdist.scheduler", "yaml")

#: The operators of cosmic-ray.
COMPARISONS = "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Is_IsNot IsNot_Is"
ARITHMETIC = "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul BitOr_BitAnd BitAnd_BitOr LShift_RShift RShift_LShift"
LOGIC = """
    ReplaceUnaryOperator_Delete_Not AddNot ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue
    NumberReplacer
"""
FLOW = "ReplaceBreakWithContinue ReplaceContinueWithBreak ZeroIterationForLoop"


class DropStatement(Operator):
    """Leaves out a statement that only has an effect: a call, or raising an error."""

    def mutation_positions(self, node: t.Any) -> t.Iterator[t.Tuple[t.Any, t.Any]]:
        """Yield where the statement is."""
        if node.type == "simple_stmt" and node.children[0].type in ("atom_expr", "raise_stmt", "yield_expr"):
            yield node.start_pos, node.end_pos

    def mutate(self, node: t.Any, index: int) -> t.Any:
        """Put one in its place that does nothing."""
        prefix = node.get_first_leaf().prefix
        node.children[0] = get_ast("pass").children[0]
        node.get_first_leaf().prefix = prefix
        return node

    @classmethod
    def examples(cls) -> t.Tuple[()]:
        """Return nothing, as cosmic-ray's own tests do not know it."""
        return ()


class ReturnNone(DropStatement):
    """Returns None in place of what is worked out."""

    def mutation_positions(self, node: t.Any) -> t.Iterator[t.Tuple[t.Any, t.Any]]:
        """Yield where the value is; one that is written down there is left to other operators."""
        if node.type == "return_stmt" and node.children[1].type not in ("keyword", "number", "string"):
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: t.Any, index: int) -> t.Any:
        """Return None."""
        node.children[1] = get_ast(" None")
        return node


class OtherException(DropStatement):
    """Expects another exception than those that come."""

    def mutation_positions(self, node: t.Any) -> t.Iterator[t.Tuple[t.Any, t.Any]]:
        """Yield where they are named."""
        if node.type == "except_clause" and len(node.children) > 1:
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: t.Any, index: int) -> t.Any:
        """Name one that nothing here raises."""
        node.children[1] = get_ast(" ZeroDivisionError")
        return node


class SwapIn(DropStatement):
    """Swaps in and not in."""

    def mutation_positions(self, node: t.Any) -> t.Iterator[t.Tuple[t.Any, t.Any]]:
        """Yield where the operator is."""
        if node.type == "comparison" and node.children[1].get_code(include_prefix=False) in ("in", "not in"):
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: t.Any, index: int) -> t.Any:
        """Put the other one there."""
        other = " not in" if node.children[1].type == "keyword" else " in"
        node.children[1] = get_ast(other)
        return node


def operators() -> t.Dict[str, Operator]:
    """Return the changes by their names."""
    names = [f"ReplaceComparisonOperator_{name}" for name in COMPARISONS.split()]
    names += [f"ReplaceBinaryOperator_{name}" for name in ARITHMETIC.split()]
    names += [*LOGIC.split(), *FLOW.split()]
    found = {name: get_operator(f"core/{name}")() for name in names}
    own = (DropStatement(), OtherException(), ReturnNone(), SwapIn())
    return {**found, **{type(operator).__name__: operator for operator in own}}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change: the occurrence of an operator in a file, and the lines that it changes."""

    path: Path
    operator: str
    occurrence: int
    lines: t.Tuple[int, int]

    def source(self) -> str:
        """Return the changed source."""
        text: str = mutate_code(self.path.read_text(encoding="utf-8"), operators()[self.operator], self.occurrence)
        return text

    def difference(self) -> str:
        """Return the lines before and after, as far as they differ."""
        before, after = self.path.read_text(encoding="utf-8").splitlines(), self.source().splitlines()
        pairs = [(one.strip(), other.strip()) for one, other in zip(before, after) if one != other]
        one, other = pairs[0] if pairs else ("", "")
        return f"{self.path.name}:{self.lines[0]} {self.operator}\n    - {one}\n    + {other}"


def mutants(path: Path) -> t.List[Mutant]:
    """Return all mutants of a file, but those of decorators and of imports for types, which nothing runs."""
    text = path.read_text(encoding="utf-8")
    lines, nodes = text.splitlines(), list(ast_nodes(get_ast(text)))
    found = []
    for name, operator in operators().items():
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        found += [Mutant(path, name, count, (start[0], end[0])) for count, (start, end) in enumerate(places)]
    return [mutant for mutant in found if not lines[mutant.lines[0] - 1].startswith(("@", "if t.TYPE_CHECKING"))]


class Tests:
    """The tests that come through a line, as coverage found, those of the module itself first."""

    def __init__(self) -> None:
        """Read what coverage found."""
        self._data = coverage.CoverageData(COVERAGE)
        self._data.read()
        self._files = {os.path.realpath(path): path for path in self._data.measured_files()}

    def of(self, mutant: Mutant) -> t.List[str]:
        """Return the tests of a mutant; what is only run on import is for all that come through the module."""
        contexts = self._data.contexts_by_lineno(self._files.get(str(mutant.path), ""))
        lines = range(mutant.lines[0], mutant.lines[1] + 1)
        found = {context.rpartition("|")[0] for line in lines for context in contexts.get(line, ())} - {""}
        own = f"/test_{mutant.path.stem}"
        if not found:
            found = {context.rpartition("|")[0] for each in contexts.values() for context in each} - {""}
        return sorted(found, key=lambda test: (own not in test, test)) or OwnTests().of(mutant)


class OwnTests:
    """The files of tests that have the name of the module; for one without any those of whole modules."""

    def of(self, mutant: Mutant) -> t.List[str]:
        """Return the files of tests of a mutant."""
        found = (ROOT / "tests" / "unit").rglob(f"test_{mutant.path.stem}*.py")
        longer = [path.stem for path in CODE.glob(f"{mutant.path.stem}_*.py")]
        own = [str(path) for path in found if not any(path.stem.startswith(f"test_{name}") for name in longer)]
        return own or [str(ROOT / "tests" / "unit" / "plugins" / "modules")]


def import_changed(mutant: Mutant) -> None:
    """Let the module be imported from the changed source in this process, and from no compiled file."""
    text, get_code, get_data = mutant.source(), SourceFileLoader.get_code, SourceFileLoader.get_data

    def code(loader: SourceFileLoader, name: str) -> t.Any:
        if os.path.realpath(loader.path) == str(mutant.path):
            return compile(text, loader.path, "exec", dont_inherit=True)
        return get_code(loader, name)

    def data(loader: SourceFileLoader, path: str) -> bytes:
        return text.encode("utf-8") if os.path.realpath(path) == str(mutant.path) else get_data(loader, path)

    SourceFileLoader.get_code, SourceFileLoader.get_data = code, data  # type: ignore[method-assign, assignment]  # meant


def start(mutant: Mutant, tests: t.Sequence[str]) -> int:
    """Run tests with a mutant in another process; return its number."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    try:
        import_changed(mutant)
        os._exit(pytest.main(["-x", *PYTEST, *tests]))
    finally:
        os._exit(70)


#: What an exit status of pytest says: the tests passed, one failed or could not be collected, none was run.
SAID = {0: "survived", 1: "killed", 2: "killed", 3: "killed"}


def outcomes(
    chosen: t.Sequence[Mutant], tests: t.Union[Tests, OwnTests], processes: int, limit: float
) -> t.Iterator[t.Tuple[Mutant, str]]:
    """Yield what becomes of each mutant; one that takes longer than the limit, in seconds, is noticed by that."""
    waiting, running = list(chosen), t.cast(t.Dict[int, t.Tuple[Mutant, float]], {})
    while waiting or running:
        while waiting and len(running) < processes:
            mutant = waiting.pop(0)
            names = tests.of(mutant)
            if names:
                running[start(mutant, names)] = mutant, time.monotonic() + limit
            else:
                yield mutant, "survived"
        pid, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if pid in running:
            yield running.pop(pid)[0], SAID.get(os.waitstatus_to_exitcode(status), "broken")
            kill(pid)
        for late in [number for number, (_mutant, deadline) in running.items() if time.monotonic() > deadline]:
            yield running.pop(late)[0], "too long"
            kill(late)
        time.sleep(0 if pid else 0.02)


def kill(group: int) -> None:
    """End what a mutant left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def confine() -> None:
    """Begin again where nothing but an own /tmp can be written, and no process but own ones be seen."""
    if "MUTATION" not in os.environ:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += [] if os.geteuid() == 0 else ["--map-root-user"]
        environment = {
            **os.environ,
            "MUTATION": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COVERAGE_FILE": COVERAGE,
            "HOME": "/tmp",
        }
        os.execvpe(command[0], [*command, sys.executable, "-m", "tests.mutation", *sys.argv[1:]], environment)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    for place in sorted({place for place in places if not re.match(r"/(proc|dev|tmp)(/|$)", place)}):
        # a mount that lies below another one cannot be reached, and so needs no protection
        subprocess.run(["mount", "--options", "remount,bind,ro", place], stderr=subprocess.DEVNULL, check=False)
    for place in ("/tmp", "/var/tmp"):
        subprocess.run(["mount", "--types", "tmpfs", "tmpfs", place], check=True)


def measure(selected: str) -> Tests:
    """Find out which of the tests come through which lines."""
    options = [f"--cov={CODE}", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    done = subprocess.run([sys.executable, "-m", "pytest", *PYTEST, *options, selected], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit("The tests fail without a change, so they cannot say anything about one.")
    return Tests()


def table(found: t.Mapping[Mutant, str]) -> str:
    """Return how many mutants of each file were noticed."""
    rows = collections.defaultdict(collections.Counter)  # type: t.Dict[str, t.Counter[str]]
    for mutant, outcome in found.items():
        for row in (mutant.path.name, "all"):
            rows[row][outcome] += 1
    lines = []
    for name, counts in rows.items():
        whole, noticed = sum(counts.values()) - counts["broken"], counts["killed"] + counts["too long"]
        lines.append(f"{name:28}{noticed:5} of {whole:5}  {100 * noticed / max(1, whole):5.1f} %")
    return "\n".join(sorted(lines, key=lambda line: (line.startswith("all "), line)))


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="modules such as _store; without any all of them")
    parser.add_argument("--sample", type=int, help="so many mutants by chance, not all")
    parser.add_argument("--seed", type=int, default=1, help="of the chance")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--own", action="store_true", help="only tests in files with the name of the module count")
    parser.add_argument("--tests", default="tests/unit", help="those that may notice a mutant")
    parser.add_argument("--limit", type=float, default=120, help="seconds for the tests of one mutant")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the survivors and the table."""
    given = arguments()
    confine()
    paths = [path for path in sorted(CODE.glob("_*.py")) if not given.names or path.stem in given.names]
    chosen = [mutant for path in paths for mutant in mutants(path)]
    random.Random(given.seed).shuffle(chosen)
    chosen = chosen[: given.sample]
    tests = OwnTests() if given.own else measure(given.tests)
    for name in FOREIGN:
        importlib.import_module(name)
    found = {}
    with contextlib.suppress(KeyboardInterrupt):  # what is known by then counts
        for count, (mutant, outcome) in enumerate(outcomes(chosen, tests, given.processes, given.limit), 1):
            found[mutant] = outcome
            if outcome in ("survived", "broken"):
                print(f"{count} of {len(chosen)}, {outcome}: {mutant.difference()}", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
