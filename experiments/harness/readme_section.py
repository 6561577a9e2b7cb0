"""Sections of the README that are written from measurements, each between two markers."""

from pathlib import Path
from typing import NamedTuple

from experiments.harness.store import write_atomically

README = Path(__file__).parents[2] / "README.md"


class ReadmeSection(NamedTuple):
    """The markers of a section, as HTML comments."""

    begin: str
    end: str

    def surroundings(self, page: Path = README) -> tuple[str, str]:
        """Return the text before and after the section, markers included.

        Call it before a long run, to fail early.

        Raises:
            ValueError: the markers aren't there once each and in order.
        """
        text = page.read_text(encoding="utf-8")
        if text.count(self.begin) != 1 or text.count(self.end) != 1 or text.index(self.begin) > text.index(self.end):
            raise ValueError(
                f"{page.name}: expected {self.begin} and after it {self.end}, once each. Put them where the table goes."
            )
        return text[: text.index(self.begin) + len(self.begin)], text[text.index(self.end) :]

    def write(self, content: str, page: Path = README) -> None:
        """Write the content between the markers."""
        write_atomically(page, f"\n{content}\n".join(self.surroundings(page)))


def readme_section(name: str) -> ReadmeSection:
    """Return the section of a name.

    Example:
        >>> readme_section("speed")
        ReadmeSection(begin='<!-- speed -->', end='<!-- /speed -->')
    """
    return ReadmeSection(f"<!-- {name} -->", f"<!-- /{name} -->")
