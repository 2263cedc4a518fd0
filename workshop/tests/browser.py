"""A real browser for the tests of pages, and names that would break a page which did not escape them."""

import json
import shutil
from pathlib import Path

HOSTILE = [
    "cat/<img src=x onerror=alert(1)>.png",
    "cat/</script><script>alert(2)</script>.png",
    "cat/</style></li></ul></main><!-- groups -->.png",
    """cat/" onload="alert(3)" x='&amp;'.png""",
    "cat/new\nline\r\n\r.png",
    "cat/bell\x07 next\x85line \u2028\u2029.png",
    "cat/\u202egnp.exe",
    "cat/חתול \u2069\u2067قطة.png",
    "cat/" + "x" * 247,
    "\"><img src=x onerror=alert(4)>'&lt;/picture.png",
]


class Browser:
    """A headless Chromium on one page."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome import service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        quiet = ["disable-gpu", "no-first-run", "disable-background-networking", "disable-component-update"]
        for option in ["headless=new", "no-sandbox", "disable-sync", *quiet, f"user-data-dir={folder}"]:
            options.add_argument(f"--{option}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, service.Service(shutil.which("chromedriver")))

    def open(self, page: Path, width: int = 1000, **media: str) -> None:
        """Open a file in a window of `width` pixels; `media` as in media queries."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        kind = media.pop("type", "screen")
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})
        self.driver.get(page.as_uri())

    def js(self, script: str):
        """What an expression of JavaScript gives."""
        return self.driver.execute_script(f"return {script}")

    def find(self, selector: str):
        """The first element."""
        return self.driver.find_element("css selector", selector)

    def choose(self, name: str, text: str) -> None:
        """Type into a select until it has this entry, as one does without a mouse."""
        self.find(f"select[name={name}]").send_keys(text)

    def visible(self) -> list[str]:
        """The first path of each card that can be seen."""
        cards = [card for card in self.driver.find_elements("css selector", ".card") if card.is_displayed()]
        return [card.find_element("css selector", ".path").get_property("textContent") for card in cards]

    def counted(self) -> str:
        """What the page says about that."""
        return self.find("output").text

    def requests(self) -> list[str]:
        """The kinds of all addresses that were asked for since the last call."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [url.partition(":")[0] for url in urls]
