"""A page in a browser, with all that it says and asks for written down."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Opened:
    """A page, what it said, and what it asked for."""

    tab: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        return self.tab.locator(selector).count()

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).first.text_content()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def close(self) -> None:
        """A page says nothing on the console, and asks for nothing but itself."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))] == []
        self.tab.context.close()


def open_page(browser: Any, place: Path, fragment: str = "", *, width: int = 1280, **options: Any) -> Opened:
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    opened = Opened(context.new_page())
    opened.tab.on("console", lambda message: opened.said.append(message.text))
    opened.tab.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.tab.on("request", lambda request: opened.asked.append(request.url))
    opened.tab.goto(f"file://{place}{fragment}")
    opened.tab.set_default_timeout(5000)
    opened.tab.wait_for_selector(".formation .history")
    return opened
