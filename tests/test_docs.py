"""The documentation says what is: links, commands, settings and messages, held against the code."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import DOCS, PAGES, README, mentions, ocr_commands, ours, program, shell_lines
from source_files import REPOSITORY, name_of

from resources.settings import Settings

SITE = REPOSITORY / ".ci" / "mkdocs.yml"
SETTINGS = {f"OCR_{name.upper()}" for name in Settings.model_fields}

_VARIABLE = re.compile(r"\bOCR_[A-Z0-9_]+")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


# -- the site


class _Requests(HTMLParser):
    """Addresses that a browser asks for by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") != "canonical":
            self.found.append(values.get("href") or "")


def build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site strictly. Not with --quiet, which would let warnings pass."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*command, "--config-file", str(config), "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(SITE, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_with_every_link_and_anchor(site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert built - {Path("404.md")} == {path.relative_to(DOCS) for path in DOCS.rglob("*.md")}


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    config = tmp_path / SITE.parent.name / SITE.name
    config.parent.mkdir()
    shutil.copy(SITE, config)
    (tmp_path / "docs" / "index.md").write_text("[a](nowhere.md) [b](tiles.md#nowhere)\n")
    done = build(config, tmp_path / "site")
    assert done.returncode != 0
    assert "'nowhere.md'" in done.stderr
    assert "'#nowhere'" in done.stderr


def test_no_page_asks_another_address(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = _Requests()
        page.feed(path.read_text())
        assert page.found, f"{path.name} has not even a stylesheet"
        assert not [address for address in page.found if re.match(r"(\w+:)?//", address)]
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text()), path


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(below)

    listed = sorted(pages(yaml.safe_load(SITE.read_text())["nav"]))
    assert listed == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")), (
        "name each page of docs/ once in the nav of .ci/mkdocs.yml"
    )


def test_links_of_the_readme_lead_somewhere() -> None:
    links = [link for link in _LINK.findall(README.read_text()) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = README.parent / path if path else README
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings]
            assert anchor in slugs, link


# -- commands


def parse(arguments: list[str]) -> None:
    """Let the command line read arguments and run nothing. Files that are to exist are made."""
    if arguments[0].startswith("-") or "--help" in arguments:  # done while it is read
        assert unknown_words(" ".join(["ocr", *arguments])) == []
        return
    command, context, rest = program(), None, arguments
    while hasattr(command, "commands"):
        context = command.make_context(command.name, list(rest), parent=context)
        rest = [*context._protected_args, *context.args]
        _, command, rest = command.resolve_command(context, rest)
    while True:
        try:
            command.make_context(command.name, list(rest), parent=context)
        except Exception as error:
            missing = re.search(r"'([^']+)' does not exist", str(getattr(error, "message", "")))
            if missing is None or Path(missing[1]).exists():
                raise
            Path(missing[1]).touch()
        else:
            return


def fenced() -> list[Any]:
    return [
        pytest.param(arguments, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, arguments in enumerate(
            found for line in shell_lines(page.read_text()) for found in ocr_commands(line)
        )
    ]


@pytest.mark.parametrize("arguments", fenced())
def test_every_command_line_parses(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parse(arguments)


@pytest.mark.parametrize(
    "line",
    [
        "ocr fly",
        "ocr run --all-region-ids --fast",
        "ocr run --all-region-ids --platform lambda",
        "ocr map && ocr tiles run",
        "OCR_PLATFORM=dask .venv/bin/ocr process-region y1_x1 y1_x2",
    ],
)
def test_a_wrong_command_line_would_be_found(line: str) -> None:
    *right, wrong = ocr_commands(line)
    for arguments in right:
        parse(arguments)
    with pytest.raises(Exception, match=r"No such|not one of|Missing|unexpected"):
        parse(wrong)


def test_the_commands_of_the_pages_are_found() -> None:
    typed = "$ OCR_PLATFORM=dask ocr run \\\n    -r y1_x1  # one\n1 region\n$ make demo\n"
    block = f"```console\n{typed}```\n"
    found = [command for line in shell_lines(block) for command in ocr_commands(line)]
    assert found == [["run", "-r", "y1_x1"]]
    assert len(fenced()) > 60


def unknown_words(mention: str) -> list[str]:
    """Commands and options that a mention names and the command line does not have."""
    words = mention.split()[1:]
    command = program()
    while words and hasattr(command, "commands") and not words[0].startswith(("-", "…", "{")):
        if words[0] not in command.commands:
            return [words[0]]
        command = command.commands[words.pop(0)]
    options = {"--help"}
    for parameter in command.params:
        options |= {*parameter.opts, *parameter.secondary_opts}
    return [word for word in words if word.startswith("-") and word.rstrip(",") not in options]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_mentions_exists(page: Path) -> None:
    unknown = {mention: unknown_words(mention) for mention in mentions(page)}
    assert {mention: words for mention, words in unknown.items() if words} == {}


def test_a_wrong_mention_would_be_found() -> None:
    assert unknown_words("ocr --fly") == ["--fly"]
    assert unknown_words("ocr tiles fly") == ["fly"]
    assert unknown_words("ocr tiles run --fast --yes") == ["--fast"]
    assert unknown_words("ocr deploy prune --keep 5") == []


# -- settings


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(_VARIABLE.findall(ours(page)))
    groups = {name for name in named if name.endswith("_")}
    assert named - groups - SETTINGS == set()
    assert all(any(name.startswith(group) for name in SETTINGS) for group in groups)


def test_every_setting_is_in_the_reference() -> None:
    assert SETTINGS - set(_VARIABLE.findall((DOCS / "configuration.md").read_text())) == set()


# -- messages


@cache
def strings_of_the_code() -> list[str]:
    """Every text of the code, its values as `…`, blanks as one."""
    found = []
    for package in ("ocr_assets", "resources", "sensors"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(
                            str(part.value) if isinstance(part, ast.Constant) else "…"
                            for part in node.values
                        )
                    )
    return [" ".join(text.split()) for text in found]


def messages() -> list[str]:
    page = (DOCS / "troubleshooting.md").read_text()
    return re.findall(r"^\| ``? ?(.+?) ?``? \|", page, re.MULTILINE)


def is_said(message: str) -> bool:
    """Whether the code has a text with the parts of a message between `…`, in their order."""
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    pattern = re.compile(".*".join(parts))
    return any(pattern.search(text) for text in strings_of_the_code())


def test_every_message_of_troubleshooting_is_one_of_the_code() -> None:
    assert len(messages()) > 30
    stale = [message for message in messages() if not is_said(message)]
    assert stale == [], "the code says it otherwise: change docs/troubleshooting.md"
    assert not is_said("the moon is … made of cheese")


# -- the example of a proxy


def test_the_proxy_of_the_example_asks_for_a_password_everywhere() -> None:
    config = (REPOSITORY / "deploy" / "nginx.conf").read_text()
    directives = [line.split("#")[0].split() for line in config.splitlines()]
    server, _, locations = config.partition("location /")
    assert "auth_basic_user_file " in server
    assert config.count("auth_basic ") == 1, "an exception of a location"
    assert [words for words in directives if words[:1] == ["location"]] == [["location", "/", "{"]]
    assert "auth_basic" not in locations
    assert [words[1] for words in directives if words[:1] == ["listen"]] == ["443"]
    dev = program().commands["dev"]
    (port,) = (parameter.default for parameter in dev.params if parameter.name == "port")
    targets = [words[1] for words in directives if words[:1] == ["proxy_pass"]]
    assert targets == [f"http://127.0.0.1:{port};"]
