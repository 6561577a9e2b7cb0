"""Parts of the README that are written from what was measured: each stands between two marks of its own."""

from pathlib import Path
from typing import NamedTuple

from experiments.harness.store import write_atomically

README = Path(__file__).parents[2] / "README.md"


class ReadmeSection(NamedTuple):
    """Where a part begins and where it ends, as comments that no reader sees."""

    begin: str
    end: str

    def around(self, page: Path = README) -> tuple[str, str]:
        """What stands before and after the part, the marks included. Ask before a long run, not after it.

        Raises:
            ValueError: the marks aren't there, once each and in order.
        """
        text = page.read_text(encoding="utf-8")
        if text.count(self.begin) != 1 or text.count(self.end) != 1 or text.index(self.begin) > text.index(self.end):
            raise ValueError(
                f"{page.name}: expected {self.begin} and after it {self.end}, once each. Put them where the table goes."
            )
        return text[: text.index(self.begin) + len(self.begin)], text[text.index(self.end) :]

    def write(self, part: str, page: Path = README) -> None:
        """Put a part between its marks."""
        write_atomically(page, f"\n{part}\n".join(self.around(page)))


def readme_section(name: str) -> ReadmeSection:
    """The marks of a part.

    Example:
        >>> marks("speed")
        Marks(begin='<!-- speed -->', end='<!-- /speed -->')
    """
    return ReadmeSection(f"<!-- {name} -->", f"<!-- /{name} -->")
