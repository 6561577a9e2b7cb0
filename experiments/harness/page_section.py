"""Sections of README.md and of the site's pages that are written from measurements, each between two markers."""

from pathlib import Path
from typing import NamedTuple

from experiments.harness.store import write_atomically

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"


class PageSection(NamedTuple):
    """A section of a page, between two HTML comments that hold its name.

    Example:
        >>> PageSection(README, "speed").begin
        '<!-- speed -->'
    """

    page: Path
    name: str

    @property
    def begin(self) -> str:
        return f"<!-- {self.name} -->"

    @property
    def end(self) -> str:
        return f"<!-- /{self.name} -->"

    def surroundings(self) -> tuple[str, str]:
        """Return the text before and after the section, markers included.

        Call it before a long run, to fail early.

        Raises:
            ValueError: the markers aren't there once each and in order.
        """
        text = self.page.read_text(encoding="utf-8")
        if text.count(self.begin) != 1 or text.count(self.end) != 1 or text.index(self.begin) > text.index(self.end):
            raise ValueError(
                f"{self.page.name}: expected {self.begin} and after it {self.end}, once each. "
                "Put them where the table goes."
            )
        return text[: text.index(self.begin) + len(self.begin)], text[text.index(self.end) :]

    def content(self) -> str:
        """Return the text between the markers."""
        before, after = self.surroundings()
        text = self.page.read_text(encoding="utf-8")
        return text[len(before) : len(text) - len(after)].strip()

    def write(self, content: str) -> None:
        """Write the content between the markers."""
        write_atomically(self.page, f"\n{content}\n".join(self.surroundings()))
