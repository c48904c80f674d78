"""Docstrings, comments, messages and guides use plain words; CONTRIBUTING.md says which, and why.

The tests ignore code: identifiers, strings without a blank, names within backticks, examples and
the targets of links. Public names such as `error.tries` stay as they are.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

from guides import PAGES

PROJECT = Path(__file__).parent.parent
OVERLAYS = PROJECT / "overlays"


class Avoided(NamedTuple):
    """An expression to avoid, what to use, and what the pattern must and must not find."""

    word: str
    use: str
    pattern: str
    found: tuple[str, ...]
    allowed: tuple[str, ...] = ()


_DETERMINER = (
    r"(?:an?|one|another|each|every|any|no|all|some|the|its|their|your|next|last|first|second|third"
    r"|further|single|few|many|several|per|two|three|four|five|\d+)"
)
AVOIDED = [
    Avoided("mend", "fix", r"\bmend(?:s|ed|ing)?\b", ("Mend the file.", "mended"), ("amend it",)),
    Avoided(
        "for the time being",
        "transient(ly), temporarily",
        r"\bfor\s+the\s+time\s+being\b",
        ("It fails for the time being.", "for the time\n    being"),
        ("for the time it takes",),
    ),
    Avoided(
        "on its way",
        "in flight",
        r"\bon\s+(?:its|their|the)\s+way\b",
        ("A request on its way.", "as many on their way", "rounded on the way"),
        ("in its own way",),
    ),
    Avoided(
        "try (noun)",
        "attempt",
        rf"\b{_DETERMINER}\s+tr(?:y|ies)\b(?!\s+to\b)"
        r"|\b(?:this|that)\s+try\b(?!\s+to\b)|\btries\s+(?:and|are|were|at\s+most|in\s+all|of)\b",
        ("Seconds of one try.", "the next try", "all tries", "tries and waits"),
        ("It tries to connect.", "try again", "tries: How often.", "the retries", "to try it"),
    ),
    Avoided(
        "say (for example)",
        "for example, such as",
        r"[,(]\s*say\b",
        ('send "yes", say', "in, say, three days", "a day (say 86,400 s)"),
        ("it would say so", "he says", ", says Intercom"),
    ),
    Avoided(
        "held back",
        "delayed",
        r"\b(?:held|hold|holds|holding)\s+(?:\w+\s+)?back\b",
        ("Requests are held back.", "holds everything back"),
        ("it holds the lock", "came back"),
    ),
    Avoided(
        "text (a type)",
        "string",
        r"\b(?:is|are|be|as|no|not|nor|neither|pass|than|ISO\s+8601|to|or|of\s+the\s+type)\s+"
        r"(?-i:text)\b(?!/)(?!\s+(?:is|file|mode|editor|of)\b)"
        r"|^\s*(?-i:[Tt]ext)\s+(?:that|which|with|without|in)\b",
        ("It is text.", "no text", "send it as text", "is not text", "Text that carries an offset"),
        (
            "see `.text`",
            "a text/html page",
            "the text of a message",
            "not text/html",
            "SAME AS TEXT",
        ),
    ),
    Avoided(
        "whole number",
        "integer",
        r"\bwhole\s+numbers?\b",
        ("A whole number.", "whole\n    numbers"),
        ("whole seconds", "the whole body"),
    ),
    Avoided(
        "is no X",
        "is not an X",
        r"(?<!there\s)(?<!there\sstill\s)\b(?:is|are|was|were)\s+no\s+"
        r"(?!longer\b|more\b|less\b|fewer\b|later\b|earlier\b)\w+",
        ("is no text", "which is no time", "They are no events.", "a file that was no database"),
        ("There is no room.", "where there\nis no room", "is no longer", "it has no room"),
    ),
    Avoided(
        "as many as there are",
        "all",
        r"\bas\s+many\s+as\s+there\s+are\b",
        ("Submits events, as many as there are.",),
        ("as many as fit",),
    ),
    Avoided(
        "what is refused",
        "rejected events",
        r"\bwhat\s+(?:is|was)\s+refused\b",
        ("What is refused does not stop the rest.",),
        ("it is refused", "what Intercom said"),
    ),
    Avoided(
        "look after",
        "maintain",
        r"\blook(?:s|ed|ing)?\s+after\b",
        ("It looks after the file.", "looked after"),
        ("look at it after a while",),
    ),
    Avoided(
        "let go of",
        "release",
        r"\blet(?:s|ting)?\s+go\s+of\b",
        ("Each is let go of.", "lets go of the lock"),
        ("let it go on",),
    ),
    Avoided(
        "in the midst of",
        "during",
        r"\bin\s+the\s+midst\b",
        ("in the midst of a wait", "ends in the midst."),
        ("in the middle",),
    ),
    Avoided(
        "the like", "similar", r"\bthe\s+like\b", ("forks and the like",), ("the likely cause",)
    ),
    Avoided(
        "whoever, anybody, nobody, somebody",
        "the actor: caller, worker, server, process",
        r"\b(?:who(?:ever|mever)|(?:any|no|some)body)\b",
        ("Whoever gave it closes it.", "nobody waits", "somebody's", "anybody else"),
        ("the body of an answer", "those who test"),
    ),
    Avoided(
        "who is not",
        "the actor: caller, worker, server, process",
        r"\bwho\s+(?:is|are)\s+not\b",
        ("infinite for who is not first",),
        ("a caller who has a token",),
    ),
    Avoided(
        "not of type X",
        "not a value of type X",
        r"\bnot\s+of\s+type\b",
        ("it must be a list, not of type dict",),
        ("not a value of type dict", "events of this type"),
    ),
    Avoided(
        "(got X)",
        ", not X",
        r"\(got\s",
        ("must be finite (got nan)",),
        ("it got a 404", "must be finite, not nan"),
    ),
    Avoided(
        "break off",
        "close the connection, truncate",
        r"\b(?:broke|breaks|broken)\s+off\b",
        ("the server broke off", "an answer that is broken off"),
        ("it breaks the connection",),
    ),
    Avoided("Effect", "Idempotency", r"(?-i:\bEffect\.)", ("Effect.NONE",), ("an effect.",)),
    Avoided("verdict", "error class, ErrorClass", r"\bverdicts?\b", ("The verdict is final.",)),
    Avoided("Pacer", "RateLimiter", r"(?-i:\bPacer\b)", ("A Pacer learns.",), ("paces itself",)),
    Avoided("Ticket", "Reservation", r"(?-i:\bTicket\b)", ("a Ticket's place",), ("a ticket",)),
    Avoided(
        "Pool",
        "Session",
        r"(?-i:\bPool\b)",
        ("The Pool of a client.",),
        ("a pool of workers", "PoolTimeout was raised"),
    ),
    Avoided("ServerClock", "ClockSkew", r"\bServerClock\b", ("a ServerClock learns",)),
    Avoided(
        "second ring",
        "the parts around the core",
        r"\bsecond\s+ring\b",
        ("of the second ring",),
        ("the second one",),
    ),
    Avoided("door", "the one import", r"\bdoors?\b", ("The one door.",), ("indoors",)),
    Avoided("keeper", "maintenance thread", r"\bkeepers?\b", ("The keeper ends.",), ("keeps it",)),
]


def prose(source):
    """What a module says, with its line: its comments, and its strings with a blank in them."""
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type is not tokenize.COMMENT:
            continue
        text = token.string.lstrip("#: ")
        line = token.start[0]
        # A sentence that goes on in the next line is one text.
        if comments and comments[-1][0] + comments[-1][1].count("\n") + 1 == line:
            comments[-1] = (comments[-1][0], f"{comments[-1][1]}\n{text}")
        else:
            comments.append((line, text))
    yield from comments
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def without_code(text):
    """A text with its names and examples blanked out, as long as before."""
    arguments = r"^ {4,}\w+:(?= )"
    return blanked(rf"``[^`]+``|`[^`]+`|^ *(?:>>>|\.\.\.) .*$|{arguments}", text)


def blanked(pattern, text):
    """A text with its matches blanked out, as long as before."""
    return re.sub(pattern, lambda found: re.sub(r"\S", "\0", found[0]), text, flags=re.MULTILINE)


def page_without_code(markdown):
    """A page with its code, its links' targets and its tables of words to avoid blanked out."""
    fenced = r"^(?P<indent> *)```.*\n(?:.*\n)*?(?P=indent)```$"
    targets = r"\]\([^)\s]+\)|<[^>\n]+>"
    avoided = r"^\| avoid \|.*\n(?:\|.*\n)*"
    return without_code(blanked(f"{fenced}|{targets}|{avoided}", markdown))


def findings(source, name="module.py"):
    """Each avoided expression in a module or a page: where it is, and what to use."""
    if name.endswith(".md"):
        texts = [(1, page_without_code(source))]
    else:
        texts = [(line, without_code(text)) for line, text in prose(source)]
    found = []
    for line, plain in texts:
        for word in AVOIDED:
            for match in re.finditer(word.pattern, plain, re.IGNORECASE | re.MULTILINE):
                at = line + plain.count("\n", 0, match.start())
                said = " ".join(match[0].split())
                found.append((at, f"{name}:{at}: {said!r}: use {word.use}"))
    return [message for _, message in sorted(found)]


PARTS = {
    "package": sorted(OVERLAYS.rglob("*.py")),
    "scripts": [PROJECT / "noxfile.py", *sorted((PROJECT / "scripts").rglob("*.py"))],
    "guides": PAGES,
}


def all_findings(paths):
    return [
        finding
        for path in paths
        for finding in findings(
            path.read_text(encoding="utf-8"), path.relative_to(PROJECT).as_posix()
        )
    ]


@pytest.mark.parametrize("part", PARTS)
def test_plain_words_are_used(part):
    found = all_findings(PARTS[part])

    assert not found, "\n".join(["words to avoid (CONTRIBUTING.md):", *found])


def as_docstring(text):
    return f'def f():\n    """Does it.\n\n    {text}\n    """\n'


def as_comment(text):
    return "x = 1\n" + "".join(f"# {line.strip()}\n" for line in text.split("\n"))


def as_message(text):
    message = f"{{x}} {text} {{x}}"
    return f"def f(x):\n    raise ValueError(f{message!r})\n"


def as_help(text):
    help_ = f"Does it.\n\n{text}"
    return f"option(help={help_!r})\n"


WAYS = [as_docstring, as_comment, as_message, as_help]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("word", AVOIDED, ids=lambda word: word.word)
def test_an_avoided_expression_is_found_wherever_it_is_said(word, way):
    for sample in word.found:
        found = findings(way(sample))
        assert any(finding.endswith(f"use {word.use}") for finding in found), sample


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("word", AVOIDED, ids=lambda word: word.word)
def test_a_similar_expression_is_allowed(word, way):
    for sample in word.allowed:
        assert findings(way(sample)) == [], sample


@pytest.mark.parametrize(
    "source",
    [
        "error.tries + nobody.verdict\n",
        'status == "nobody"\n',
        'x = {"mend": ".refused.ndjson"}\n',
        'def mend(door):\n    """Returns `door` and ``Pool.mend(nobody)``."""\n',
        'def f():\n    """Fixes it.\n\n    >>> mend("a door")\n    \'ok\'\n    """\n',
    ],
)
def test_code_is_not_looked_at(source):
    assert findings(source) == []


@pytest.mark.parametrize(
    "page",
    [
        "Run `mend(nobody)`.\n",
        "See [the guide](the%20keeper.md#the-door) and <https://example.com/keeper/the-door>.\n",
        "```python\nnobody = mend('a door')\n```\n",
        "1. Run:\n\n   ```\n   mend the door\n   ```\n",
        "| avoid | use |\n| --- | --- |\n| nobody | the actor |\n| mend | fix |\n",
    ],
)
def test_code_and_the_table_of_words_are_not_looked_at_in_a_page(page):
    assert findings(page, "page.md") == []
    said = findings(f"{page}\nMend it.\n", "page.md")
    assert said == [f"page.md:{page.count(chr(10)) + 2}: 'Mend': use fix"]


@pytest.mark.parametrize(
    "page",
    [
        "# Mend\n",
        "- To mend\n  it\n",
        "> Mend it.\n",
        "[mend it](fix.md)\n",
        "| what | how |\n| --- | --- |\n| a file | mend |\n",
        "| avoid | use |\n| --- | --- |\n| door | import |\n\nMend it.\n",
        "```\ncode\n```\nMend it.\n```\ncode\n```\n",
    ],
)
def test_the_prose_of_a_page_is_looked_at(page):
    assert len(findings(page, "page.md")) == 1


def test_a_finding_names_file_line_words_and_remedy():
    source = 'X = 1\n\n\ndef f():\n    """Says.\n\n    It fails for the\n    time being.\n    """\n'

    assert findings(source, "a/b.py") == [
        "a/b.py:7: 'for the time being': use transient(ly), temporarily"
    ]


@pytest.mark.parametrize("word", AVOIDED, ids=lambda word: word.word)
def test_contributing_lists_what_to_avoid(word):
    listed = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")

    assert f"| {word.word} | {word.use} |" in listed
